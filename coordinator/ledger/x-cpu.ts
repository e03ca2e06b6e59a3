import { mkdtempSync, rmSync } from 'node:fs';
import { pino } from 'pino';
import { spawnNetwork } from '../../fabric-network/embedded/process.ts';
import { connectLedger } from './gateway.ts';
import { readProfile } from './profile.ts';
import { MemoryTransactions } from './test-parts.ts';
const dir = mkdtempSync('/tmp/cpu-');
const net = await spawnNetwork({ dir, chaincodes: [{ name: 'fedfab', dir: 'chaincode' }] });
const ledger = await connectLedger({ profile: readProfile(net.profilePath), log: pino({level:'silent'}), transactions: new MemoryTransactions() });
await ledger.invoke('NewRound',['r','1000']);
for (const [n,size] of [[200,1000],[200,1000],[10,2000000],[3,20000000]] as const) {
 const bytes=Buffer.alloc(size,7);
 const c0=process.cpuUsage(); const t0=performance.now();
 for(let i=0;i<n;i++) await ledger.addModel({roundId:'r',clientId:`${size}-${i}-${Math.round(t0)}`,bytes,mediaType:'a/b'});
 const c=process.cpuUsage(c0);
 console.log(size, 'wall ms/op', ((performance.now()-t0)/n).toFixed(1), 'client cpu ms/op', ((c.user+c.system)/1000/n).toFixed(1));
}
await ledger.close(); await net.close(); rmSync(dir,{recursive:true});
