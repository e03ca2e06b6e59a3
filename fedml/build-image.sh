#!/bin/sh
# Builds FedML's image with the plug-in in it.
#
#   fedml/build-image.sh [--tag NAME] [--base IMAGE] [--fedml VERSION] [-- further arguments of docker build]
#
# --tag    the image's name (fedfab-fedml:local)
# --base   an image with Python and FedML, in place of FedML's own
# --fedml  0.9.6 or 0.8.50
# DOCKER names the program: docker unless set; podman will do.
set -eu

tag=fedfab-fedml:local
base=
version=
while [ $# -gt 0 ]; do
  case $1 in
    --)
      shift
      break
      ;;
    --tag | --base | --fedml)
      [ $# -ge 2 ] || {
        echo "build-image.sh: $1 wants a value" >&2
        exit 2
      }
      case $1 in
        --tag) tag=$2 ;;
        --base) base=$2 ;;
        --fedml) version=$2 ;;
      esac
      shift 2
      ;;
    *)
      echo "build-image.sh: unknown argument $1; see the head of this file" >&2
      exit 2
      ;;
  esac
done

set -- "$@" --tag "$tag"
[ -z "$base" ] || set -- "$@" --build-arg "FEDML_IMAGE=$base"
[ -z "$version" ] || set -- "$@" --build-arg "FEDML_VERSION=$version"
exec "${DOCKER:-docker}" build "$@" "$(dirname "$0")"
