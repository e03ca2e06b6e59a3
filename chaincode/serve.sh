#!/bin/sh
# Serves the contract to peers; chaincode/Dockerfile starts it in the folder that has the packages. Variables:
#   CHAINCODE_ADDRESS        where to listen: 0.0.0.0:9999
#   CHAINCODE_ID             the package's id, or
#   CHAINCODE_ID_FILE        the file that has it
#   CHAINCODE_TLS_KEY_FILE, CHAINCODE_TLS_CERT_FILE   PEM; without them there is no TLS
set -eu
id=${CHAINCODE_ID:-$(cat "$CHAINCODE_ID_FILE")}
set -- server --chaincode-address "$CHAINCODE_ADDRESS" --chaincode-id "$id" --module-path "$PWD/chaincode"
if [ -n "${CHAINCODE_TLS_KEY_FILE:-}" ]; then
  set -- "$@" --chaincode-tls-key-file "$CHAINCODE_TLS_KEY_FILE" --chaincode-tls-cert-file "$CHAINCODE_TLS_CERT_FILE"
fi
# In this process's place, so that signals reach it.
exec node node_modules/fabric-shim/cli.js "$@"
