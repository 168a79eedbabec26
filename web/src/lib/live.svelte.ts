// Whether what the board shows is live, and keeping it so: the stream, the lists behind it, and the polls beside it.
import { list, messageOf, get } from './api';
import { incidents, MAX_RECENT } from './board.svelte';
import { clock } from './clock.svelte';
import { fleet } from './fleet.svelte';
import { Stream, type StreamHandlers } from './stream';
import type { Gpu, Incident, Job, Node, Page, StreamEvents } from './types';

/** Up to this many GPUs their numbers are asked for every few seconds; beyond it a list is megabytes, and lamps come by the stream anyway. */
const SMALL_FLEET_GPUS = 256;
const SMALL_POLL_MS = 5_000;
const LARGE_POLL_MS = 60_000;
/** Events held back while the lists load; beyond it they are dropped and the lists are fetched again. */
const MAX_HELD_EVENTS = 5_000;
/** A break shorter than this is not announced: the lists are fetched again all the same. */
const GRACE_MS = 1_200;

/** Between two fetches of everything, so that a server that names what it does not list is not asked without end. */
const REFETCH_PAUSE_MS = 2_000;

/** A tab that nobody has looked at for this long gives its connection back: a browser has six for a server without HTTP/2. */
const HIDDEN_MS = 120_000;

/** Who looks at a node: told of each sample, and when samples begin to come, now or again after a hole. */
export interface Watcher {
  sample?(sample: StreamEvents['sample']): void;
  begins?(): void;
}

type Held = { [K in keyof StreamEvents]: [K, StreamEvents[K]] }[keyof StreamEvents];

class Live {
  state = $state<'connecting' | 'live' | 'lost' | 'paused'>('connecting');
  cluster = $state('');
  version = $state('');
  /** When something last came from the server, by the server's clock, in milliseconds. */
  lastData = $state<number | null>(null);
  lostAt = $state<number | null>(null);
  retryAt = $state<number | null>(null);
  why = $state('');

  private stream: Stream | null = null;
  private samples: Stream | null = null;
  private watched: string | null = null;
  private watchers = new Set<Watcher>();
  private held: Held[] | null = null;
  private fetching = false;
  private stale = false;
  private grace: ReturnType<typeof setTimeout> | undefined;
  private pausing: ReturnType<typeof setTimeout> | undefined;

  start(): void {
    this.connect();
    addEventListener('online', () => this.retryNow());
    document.addEventListener('visibilitychange', () => (document.visibilityState === 'visible' ? this.seen() : this.unseen()));
    this.poll();
  }

  private connect(): void {
    this.stream ??= new Stream('events=light,incident', { event: this.take, alive: this.alive, lost: this.lost });
  }

  private seen(): void {
    clearTimeout(this.pausing);
    this.listenToSamples();
    this.connect();
    if (this.state === 'lost') this.retryNow();
  }

  private unseen(): void {
    this.samples?.stop();
    this.samples = null;
    this.pausing = setTimeout(() => {
      this.stream?.stop();
      this.stream = null;
      this.state = 'paused';
    }, HIDDEN_MS);
  }

  retryNow(): void {
    this.stream?.retryNow();
    this.samples?.retryNow();
  }

  /** Asks for the samples of one node, for as long as somebody looks at it. Returns how to stop. */
  watch(node: string, watcher: Watcher = {}): () => void {
    this.watchers.add(watcher);
    if (this.watched !== node) {
      this.samples?.stop();
      this.samples = null;
      this.watched = node;
      this.listenToSamples();
    }
    return () => {
      this.watchers.delete(watcher);
      if (this.watchers.size > 0) return;
      this.samples?.stop();
      this.samples = null;
      this.watched = null;
    };
  }

  private listenToSamples(): void {
    if (this.watched === null) return;
    this.samples ??= new Stream(`events=sample&node=${encodeURIComponent(this.watched)}`, {
      event: (name, data) => {
        if (name === 'sample') this.sample(data as StreamEvents['sample']);
        else if (name === 'hello' || name === 'lagged') for (const watcher of this.watchers) watcher.begins?.();
      },
    });
  }

  private alive = (): void => {
    this.lastData = clock.exact();
  };

  private lost: NonNullable<StreamHandlers['lost']> = (why, _attempt, retryAt) => {
    this.why = why;
    if (!fleet.loaded) fleet.error = why;
    this.retryAt = retryAt;
    this.lostAt ??= clock.exact();
    this.grace ??= setTimeout(() => (this.state = 'lost'), this.state === 'live' ? GRACE_MS : 0);
  };

  private take: StreamHandlers['event'] = (name, data) => {
    const event = [name, data] as Held;
    if (event[0] === 'hello') return this.hello(event[1]);
    if (event[0] === 'lagged') return void this.refetch();
    if (this.held === null) return this.apply(event);
    if (this.held.length < MAX_HELD_EVENTS) this.held.push(event);
    else void this.refetch();
  };

  private hello(hello: StreamEvents['hello']): void {
    this.cluster = hello.cluster;
    this.version = hello.version;
    clock.sync(hello.now);
    void this.refetch();
  }

  private sample(sample: StreamEvents['sample']): void {
    fleet.applySample(sample);
    for (const watcher of this.watchers) watcher.sample?.(sample);
  }

  private apply(event: Held): void {
    if (event[0] === 'light' && !fleet.applyLights(event[1])) void this.refetch();
    if (event[0] === 'incident') incidents.upsert(event[1]);
  }

  /** Fetches every list again; events that come meanwhile are applied after it, since they are newer. */
  async refetch(): Promise<void> {
    this.stale = true;
    if (this.fetching) return;
    this.fetching = true;
    // Asked again while it ran: what it brings may be older than the question.
    while (this.stale) {
      this.stale = false;
      await this.load();
      if (this.stale) await new Promise((resolve) => setTimeout(resolve, REFETCH_PAUSE_MS));
    }
    this.fetching = false;
  }

  private async load(): Promise<void> {
    this.held = [];
    try {
      const [nodes, gpus, jobs, open, ended] = await Promise.all([
        list<Node>('nodes'), list<Gpu>('gpus'), list<Job>('jobs'), list<Incident>('incidents?state=open'),
        get<Page<Incident>>(`incidents?state=closed&limit=${MAX_RECENT}`),
      ]);
      fleet.applyNodes(nodes);
      fleet.applyGpus(gpus);
      fleet.jobs = jobs;
      incidents.replace(open, ended.items);
      fleet.loaded = true;
      fleet.error = null;
      this.becomeLive();
    } catch (error) {
      fleet.error = messageOf(error);
    } finally {
      const held = this.held ?? [];
      this.held = null;
      for (const event of held) this.apply(event);
    }
  }

  private becomeLive(): void {
    clearTimeout(this.grace);
    this.grace = undefined;
    this.state = 'live';
    this.lostAt = null;
    this.retryAt = null;
    this.alive();
  }

  /** Numbers, ages and holders are in no event of the fleet's stream: they are asked for, while somebody looks. */
  private poll(): void {
    const every = fleet.gpuCount <= SMALL_FLEET_GPUS ? SMALL_POLL_MS : LARGE_POLL_MS;
    setTimeout(async () => {
      if (this.state === 'live' && document.visibilityState === 'visible') await this.refresh().catch(() => {});
      this.poll();
    }, every);
  }

  private async refresh(): Promise<void> {
    const [nodes, gpus, jobs] = await Promise.all([list<Node>('nodes'), list<Gpu>('gpus'), list<Job>('jobs')]);
    fleet.applyNodes(nodes);
    fleet.applyGpus(gpus);
    fleet.jobs = jobs;
  }
}

export const live = new Live();
