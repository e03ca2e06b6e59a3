/**
 * Reads a Compose file as far as ours goes (Compose Specification: "Services", "Interpolation", "Profiles"). What it does
 * not know it refuses, so that a test cannot overlook it.
 */
import { readFileSync } from 'node:fs';

import { parse } from 'yaml';

/** A `volumes` entry, in its long form. */
export interface Mount {
  readonly type: 'bind' | 'volume';
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
  /** Of a volume: the folder in it that is mounted, instead of the whole; null for that. */
  readonly subpath: string | null;
  /** Of a volume: nothing of the image is copied into it. */
  readonly nocopy: boolean;
}

/** How a container is asked whether it works. */
export interface Healthcheck {
  readonly command: readonly string[];
  readonly timeoutMs: number;
}

/** When a service may start. */
export interface Dependency {
  readonly service: string;
  readonly condition: 'service_started' | 'service_healthy' | 'service_completed_successfully';
  /** A dependency of a profile that is not active is overlooked when it is not. */
  readonly required: boolean;
}

/** A service, all variables put in. */
export interface Service {
  readonly name: string;
  readonly image: string;
  readonly dockerfile: string | null;
  /** Null for the image's own. */
  readonly command: readonly string[] | null;
  readonly environment: ReadonlyMap<string, string>;
  /** `host:port:port`, as they stand there. */
  readonly ports: readonly string[];
  readonly mounts: readonly Mount[];
  readonly tmpfs: readonly string[];
  /** Null for the image's own. */
  readonly user: string | null;
  readonly readOnly: boolean;
  readonly capDrop: readonly string[];
  readonly securityOpt: readonly string[];
  readonly restart: string;
  readonly init: boolean;
  /** Empty: in every profile. */
  readonly profiles: readonly string[];
  readonly dependencies: readonly Dependency[];
  /** Null for the image's own. */
  readonly healthcheck: Healthcheck | null;
}

/** A whole file. */
export interface ComposeFile {
  readonly name: string;
  readonly services: ReadonlyMap<string, Service>;
  readonly volumes: readonly string[];
}

type Fields = Readonly<Record<string, unknown>>;

const serviceFields = [
  ...['image', 'build', 'command', 'environment', 'ports', 'volumes', 'tmpfs', 'user', 'read_only', 'cap_drop'],
  ...['security_opt', 'restart', 'init', 'profiles', 'depends_on', 'healthcheck', 'stop_grace_period'],
];
const mountFields = ['type', 'source', 'target', 'read_only', 'volume'];
const healthFields = ['test', 'timeout', 'interval', 'start_period', 'start_interval'];

/** Refuses fields that are not known here. */
function only(known: readonly string[], fields: Fields, where: string): void {
  const others = Object.keys(fields).filter((field) => !known.includes(field));
  if (others.length > 0) throw new Error(`${where}: not known here: ${others.join(', ')}`);
}

/** Reads a file, with these variables of the environment. Throws where it holds what is not known here. */
export function readCompose(path: string, env: ReadonlyMap<string, string> = new Map()): ComposeFile {
  const document = interpolate(parse(readFileSync(path, 'utf8'), { merge: true }), env) as {
    readonly name: string;
    readonly services: Readonly<Record<string, Fields>>;
    readonly volumes: Fields;
  };
  const others = Object.keys(document).filter((key) => !/^(name|services|volumes|x-.*)$/.test(key));
  if (others.length > 0) throw new Error(`not known here: ${others.join(', ')}`);
  return {
    name: document.name,
    services: new Map(Object.entries(document.services).map(([name, fields]) => [name, serviceOf(name, fields)])),
    volumes: Object.keys(document.volumes),
  };
}

/** The services that are active with a profile. */
export function servicesOf({ services }: ComposeFile, profile: string): ReadonlyMap<string, Service> {
  return new Map([...services].filter(([, { profiles }]) => profiles.length === 0 || profiles.includes(profile)));
}

function interpolate(value: unknown, env: ReadonlyMap<string, string>): unknown {
  if (typeof value === 'string') {
    return value.replaceAll(/\$(?:\$|\{(\w+)(?::-([^}]*))?\})/g, (found, name?: string, fallback?: string) => {
      if (found === '$$') return '$';
      const set = env.get(name ?? '') ?? fallback;
      if (set === undefined) throw new Error(`${found} has no value and no default`);
      return set;
    });
  }
  if (Array.isArray(value)) return value.map((item) => interpolate(item, env));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, interpolate(inner, env)]));
}

function serviceOf(name: string, fields: Fields): Service {
  only(serviceFields, fields, name);
  const build = fields['build'] as { context: string; dockerfile: string } | undefined;
  only(['context', 'dockerfile'], { ...build }, `${name}.build`);
  if (build !== undefined && build.context !== '.') throw new Error(`${name}: builds elsewhere: ${build.context}`);
  return {
    name,
    image: String(fields['image']),
    dockerfile: build?.dockerfile ?? null,
    command: (fields['command'] as string[] | undefined) ?? null,
    environment: new Map(Object.entries((fields['environment'] as Record<string, string> | undefined) ?? {})),
    ports: strings(fields['ports']),
    mounts: ((fields['volumes'] as Fields[] | undefined) ?? []).map((fields) => mountOf(name, fields)),
    tmpfs: strings(fields['tmpfs']),
    user: (fields['user'] as string | undefined) ?? null,
    readOnly: fields['read_only'] === true,
    capDrop: strings(fields['cap_drop']),
    securityOpt: strings(fields['security_opt']),
    restart: String(fields['restart']),
    init: fields['init'] === true,
    profiles: strings(fields['profiles']),
    dependencies: Object.entries((fields['depends_on'] as Record<string, Fields> | undefined) ?? {}).map(
      ([service, fields]) => dependencyOf(name, service, fields),
    ),
    healthcheck: healthcheckOf(name, fields['healthcheck'] as Fields | undefined),
  };
}

function dependencyOf(name: string, service: string, fields: Fields): Dependency {
  only(['condition', 'required'], fields, `${name}.depends_on`);
  return {
    service,
    condition: fields['condition'] as Dependency['condition'],
    required: fields['required'] !== false,
  };
}

function strings(value: unknown): readonly string[] {
  return (value as string[] | undefined) ?? [];
}

function mountOf(name: string, fields: Fields): Mount {
  only(mountFields, fields, `${name}.volumes`);
  const options = (fields['volume'] ?? {}) as { subpath?: string; nocopy?: boolean };
  only(['subpath', 'nocopy'], options, `${name}.volumes.volume`);
  const { subpath = null, nocopy = false } = options;
  return {
    type: fields['type'] as Mount['type'],
    source: String(fields['source']),
    target: String(fields['target']),
    readOnly: fields['read_only'] === true,
    subpath,
    nocopy,
  };
}

function healthcheckOf(name: string, fields: Fields | undefined): Healthcheck | null {
  if (fields === undefined) return null;
  only(healthFields, fields, `${name}.healthcheck`);
  const [kind, ...command] = strings(fields['test']);
  const seconds = /^(\d+)s$/.exec(String(fields['timeout']))?.[1];
  if (kind !== 'CMD' || seconds === undefined) throw new Error(`${name}: its health check is not known here`);
  return { command, timeoutMs: Number(seconds) * 1000 };
}
