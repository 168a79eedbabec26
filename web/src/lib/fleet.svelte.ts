// The fleet as the board holds it: nodes, their GPUs, jobs. Objects stay the same over updates, so that lamps are not redrawn.
import { naturally } from './filter';
import { shortNames } from './names';
import type { Gpu, Job, Light, Metrics, Node, StreamEvents } from './types';

export const LIGHTS: Light[] = ['red', 'yellow', 'grey', 'blue', 'green'];
export const LIGHT_WORDS: Record<Light, string> = { red: 'red', yellow: 'yellow', grey: 'unknown', blue: 'maintenance', green: 'healthy' };

/** Up to this many nodes every lamp has a number beside it. */
export const ROOMY_NODES = 24;
/** From here on lamps and names are at their smallest. */
export const DENSE_NODES = 128;

export class GpuState {
  light = $state<Light>('grey');
  job = $state<string | null>(null);
  model = $state<string | null>(null);
  sampledAt = $state<string | null>(null);
  metrics = $state.raw<Metrics>({});

  constructor(
    readonly node: string,
    readonly device: number,
    readonly uuid: string,
  ) {}

  apply(gpu: Gpu): void {
    this.light = gpu.light;
    this.job = gpu.job;
    this.model = gpu.name;
    // A sample that came by the stream is newer than a list that was asked for before it.
    if ((gpu.sampled_at ?? '') < (this.sampledAt ?? '')) return;
    this.sampledAt = gpu.sampled_at;
    this.metrics = gpu.metrics;
  }
}

export class NodeState {
  light = $state<Light>('grey');
  info = $state.raw<Node | null>(null);
  gpus = $state.raw<GpuState[]>([]);

  constructor(readonly name: string) {}

  gpu(device: number): GpuState | undefined {
    return this.gpus.find((g) => g.device === device);
  }
}

class Fleet {
  nodes = $state.raw<NodeState[]>([]);
  jobs = $state.raw<Job[]>([]);
  loaded = $state(false);
  error = $state<string | null>(null);
  /** The job whose lamps are shown up, while the pointer or the focus is on it. */
  pointedJob = $state<string | null>(null);
  private byName = new Map<string, NodeState>();

  private short = $derived(shortNames(this.nodes.map((n) => n.name)));
  gpuCount = $derived(this.nodes.reduce((n, node) => n + node.gpus.length, 0));
  counts = $derived.by(() => {
    const counts: Record<Light, number> = { red: 0, yellow: 0, grey: 0, blue: 0, green: 0 };
    for (const node of this.nodes) for (const gpu of node.gpus) counts[gpu.light] += 1;
    return counts;
  });

  node(name: string): NodeState | undefined {
    // Read, so that whoever asked learns when nodes come and go.
    void this.nodes;
    return this.byName.get(name);
  }

  /** A node's name as short as it can be among the nodes that are there. */
  shortName(name: string): string {
    return this.short.get(name) ?? name;
  }

  /** Puts in what the API says is there; what it no longer says is forgotten. */
  applyNodes(items: Node[]): void {
    const known = this.byName;
    const next = items.map((item) => {
      const node = known.get(item.name) ?? new NodeState(item.name);
      node.info = item;
      node.light = item.light;
      return node;
    });
    next.sort((a, b) => naturally(a.name, b.name));
    this.byName = new Map(next.map((n) => [n.name, n]));
    if (next.length !== this.nodes.length || next.some((n, i) => n !== this.nodes[i])) this.nodes = next;
  }

  applyGpus(items: Gpu[]): void {
    const perNode = Map.groupBy(items, (g) => g.node);
    for (const node of this.nodes) {
      const known = new Map(node.gpus.map((g) => [g.uuid, g]));
      const next = (perNode.get(node.name) ?? []).map((item) => {
        const kept = known.get(item.uuid);
        const gpu = kept?.device === item.device ? kept : new GpuState(item.node, item.device, item.uuid);
        gpu.apply(item);
        return gpu;
      });
      next.sort((a, b) => a.device - b.device);
      if (next.length !== node.gpus.length || next.some((g, i) => g !== node.gpus[i])) node.gpus = next;
    }
  }

  /** Puts changed lights in. False if one is of a node or GPU that is not known here: then the lists must be fetched. */
  applyLights({ lights }: StreamEvents['light']): boolean {
    let allKnown = true;
    for (const { node, device, uuid, light } of lights) {
      const at = this.byName.get(node);
      const lamp = device === null ? at : at?.gpus.find((g) => (uuid === null ? g.device === device : g.uuid === uuid));
      if (lamp) lamp.light = light;
      else allKnown = false;
    }
    return allKnown;
  }

  applySample({ node, at, gpus }: StreamEvents['sample']): void {
    const state = this.byName.get(node);
    for (const sample of gpus) {
      const gpu = state?.gpus.find((g) => g.uuid === sample.uuid);
      if (!gpu) continue;
      gpu.sampledAt = at;
      gpu.metrics = { ...gpu.metrics, ...sample.metrics };
    }
    if (state?.info) state.info = { ...state.info, last_seen: at };
  }
}

export const fleet = new Fleet();
