/**
 * The Kubernetes manifests in docs/fabric.md, held against the images and the coordinator's settings. Cannot show: that a
 * cluster takes them.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';

import { loadConfig } from '../coordinator/config.ts';
import { readDockerfile } from '../tests/fabric/compose/dockerfile.ts';

interface EnvironmentVariable {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: object;
}

interface Probe {
  readonly httpGet?: { readonly path: string; readonly port: number };
  readonly tcpSocket?: { readonly port: number };
}

interface Container {
  readonly image: string;
  readonly env: readonly EnvironmentVariable[];
  readonly ports: readonly { readonly containerPort: number }[];
  readonly livenessProbe?: Probe;
  readonly readinessProbe: Probe;
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
}

interface Volume {
  readonly name: string;
  readonly persistentVolumeClaim?: { readonly claimName: string };
  readonly secret?: { readonly secretName: string };
}

/** As far as ours go; of a Service the selector is flat. */
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly replicas?: number;
    readonly strategy?: { readonly type: string };
    readonly selector?: Readonly<Record<string, unknown>>;
    readonly ports?: readonly { readonly port: number }[];
    readonly template?: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> };
      readonly spec: {
        readonly enableServiceLinks?: boolean;
        readonly securityContext?: Readonly<Record<string, unknown>>;
        readonly containers: readonly [Container];
        readonly volumes: readonly Volume[];
      };
    };
  };
}

const root = fileURLToPath(new URL('../', import.meta.url));
const page = readFileSync(`${root}docs/fabric.md`, 'utf8');
const manifests = [...page.matchAll(/^```yaml\n(apiVersion: [^]*?)^```$/gm)].flatMap(([, text = '']) =>
  parseAllDocuments(text).map((document) => document.toJS() as Manifest),
);

function manifest(kind: string, name: string): Manifest {
  const found = manifests.find((one) => one.kind === kind && one.metadata.name === name);
  if (found === undefined) throw new Error(`there is no ${kind} ${name}`);
  return found;
}

function podOf(name: string) {
  const { template } = manifest('Deployment', name).spec;
  if (template === undefined) throw new Error(`${name} has no pod`);
  const [container] = template.spec.containers;
  return { labels: template.metadata.labels, pod: template.spec, container };
}

function valuesOf({ env }: Container): Record<string, string> {
  return Object.fromEntries(env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
}

describe('the manifests in docs/fabric.md', () => {
  it('are a Deployment and a Service of contract and coordinator, and the coordinator’s claim', () => {
    expect(manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([
      'Deployment fedfab-chaincode',
      'Service fedfab-chaincode',
      'PersistentVolumeClaim fedfab-data',
      'Deployment fedfab-coordinator',
      'Service fedfab-coordinator',
    ]);
  });

  it.each([
    ['fedfab-chaincode', 'chaincode/Dockerfile', ['/tmp']],
    ['fedfab-coordinator', 'coordinator/Dockerfile', ['/data', '/tmp']],
  ])(
    'run %s as the user of its image, without privileges, with something to write to',
    (name, dockerfile, writable) => {
      const { pod, container } = podOf(name);
      expect(readDockerfile(`${root}${dockerfile}`).user).toBe('node');
      expect(page).toContain(`docker build -f ${dockerfile} -t ${container.image} .`);
      expect({ ...pod.securityContext, ...container.securityContext }).toMatchObject({
        runAsNonRoot: true,
        // `node` of the image.
        runAsUser: 1000,
        readOnlyRootFilesystem: true,
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'] },
      });
      const { volumeMounts } = container;
      expect(volumeMounts.filter(({ readOnly }) => readOnly !== true).map(({ mountPath }) => mountPath)).toEqual(
        writable,
      );
      expect(volumeMounts.map((mount) => mount.name).toSorted()).toEqual(pod.volumes.map((one) => one.name).toSorted());
    },
  );

  it.each(['fedfab-chaincode', 'fedfab-coordinator'])('lead to %s, and ask it on the port that it has', (name) => {
    const { labels, container } = podOf(name);
    const [port] = container.ports.map(({ containerPort }) => containerPort);
    const service = manifest('Service', name).spec;
    expect(service.selector).toEqual(labels);
    expect(manifest('Deployment', name).spec.selector).toEqual({ matchLabels: labels });
    expect(service.ports?.map((one) => one.port)).toEqual([port]);
    const { readinessProbe, livenessProbe } = container;
    expect((readinessProbe.httpGet ?? readinessProbe.tcpSocket)?.port).toBe(port);
    if (livenessProbe !== undefined) expect(livenessProbe.httpGet?.port).toBe(port);
  });

  it('give the contract’s service what it reads', () => {
    const { container } = podOf('fedfab-chaincode');
    const script = readFileSync(`${root}chaincode/serve.sh`, 'utf8');
    for (const { name } of container.env) expect(script).toMatch(new RegExp(`^#.*\\b${name}\\b`, 'm'));
    const address = readDockerfile(`${root}chaincode/Dockerfile`).environment.get('CHAINCODE_ADDRESS');
    expect(address).toBe(`0.0.0.0:${container.ports[0]?.containerPort}`);
  });

  it('give the coordinator settings that it takes, one journal with one owner, and its probes', () => {
    const { pod, container } = podOf('fedfab-coordinator');
    const token = JSON.stringify([{ name: 'alice', role: 'operator', sha256: 'a'.repeat(64) }]);
    const secrets = container.env.filter(({ valueFrom }) => valueFrom !== undefined).map(({ name }) => name);
    expect(secrets).toEqual(['FEDFAB_ACCESS_TOKENS']);
    const image = Object.fromEntries(readDockerfile(`${root}coordinator/Dockerfile`).environment);
    const config = loadConfig({ env: { ...image, ...valuesOf(container), FEDFAB_ACCESS_TOKENS: token } });
    expect(config).toMatchObject({ data_dir: '/data', http: { host: '0.0.0.0' }, access: { open_health: true } });
    expect(container.ports).toEqual([{ containerPort: config.http.port }]);
    // What Kubernetes tells of a Service called fedfab-http.
    expect(() => loadConfig({ env: { FEDFAB_HTTP_PORT: 'tcp://10.0.0.1:8080' } })).toThrow('FEDFAB_HTTP_PORT');
    expect(pod.enableServiceLinks).toBe(false);

    expect(manifest('Deployment', 'fedfab-coordinator').spec).toMatchObject({
      replicas: 1,
      strategy: { type: 'Recreate' },
    });
    const volumeAt = (path: string): Volume | undefined => {
      const mount = container.volumeMounts.find(({ mountPath }) => path.startsWith(mountPath));
      return pod.volumes.find(({ name }) => name === mount?.name);
    };
    expect(volumeAt('/data')?.persistentVolumeClaim?.claimName).toBe('fedfab-data');
    expect(volumeAt(config.ledger.profile ?? '')?.secret?.secretName).toBe('fedfab-ledger');
    expect([container.livenessProbe?.httpGet?.path, container.readinessProbe.httpGet?.path]).toEqual([
      '/healthz',
      '/readyz',
    ]);
  });
});
