/** Work that costs, done a few at a time, in turns by who asks for it: one that asks a thousand times holds up no other. */

/** Bounds of a queue. */
export interface FairBounds {
  readonly atOnce: number;
  /** How much may wait: of all, and of one. */
  readonly most: number;
  readonly mostOfOne: number;
}

interface Job {
  run(): Promise<void>;
  drop(): void;
}

/** See the file's docstring. */
export class FairQueue {
  readonly #bounds: FairBounds;
  /** Who asks → what waits. Whose turn it is comes first. */
  readonly #waiting = new Map<string, Job[]>();
  #running = 0;
  #size = 0;

  constructor(bounds: FairBounds) {
    this.#bounds = bounds;
  }

  /** What the work resolves to; null where too much waits already. */
  async add<T>(who: string, work: () => Promise<T>): Promise<T | null> {
    const own = this.#waiting.get(who) ?? [];
    if (own.length >= this.#bounds.mostOfOne || !this.#makeRoom(own.length)) return null;
    const { promise, resolve, reject } = Promise.withResolvers<T | null>();
    own.push({ run: () => work().then(resolve, reject), drop: () => resolve(null) });
    this.#waiting.set(who, own);
    this.#size += 1;
    this.#next();
    return promise;
  }

  /** Where all is full, whoever has most waiting gives up its last, unless the newcomer has as much itself. */
  #makeRoom(ownLength: number): boolean {
    if (this.#size < this.#bounds.most) return true;
    const longest = [...this.#waiting.values()].reduce<Job[]>(
      (most, jobs) => (jobs.length > most.length ? jobs : most),
      [],
    );
    if (longest.length <= ownLength + 1) return false;
    longest.pop()?.drop();
    this.#size -= 1;
    return true;
  }

  #next(): void {
    if (this.#running >= this.#bounds.atOnce) return;
    const [turn] = this.#waiting;
    if (turn === undefined) return;
    const [who, jobs] = turn;
    const job = jobs.shift();
    this.#waiting.delete(who);
    if (jobs.length > 0) this.#waiting.set(who, jobs);
    if (job === undefined) return;
    this.#size -= 1;
    this.#running += 1;
    void job.run().finally(() => {
      this.#running -= 1;
      this.#next();
    });
  }
}
