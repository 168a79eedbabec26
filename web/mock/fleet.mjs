// A fake fleet: nodes, GPUs, jobs and the lights that incidents put on them.
import { metricsAt } from './physics.mjs';

export const iso = (seconds) => new Date(seconds * 1000).toISOString();
export const nowSeconds = () => Date.now() / 1000;
const worst = (lights) => ['red', 'yellow', 'grey', 'blue', 'green'].find((l) => lights.includes(l)) ?? 'green';

/** Jobs as they take nodes: the first half trains, some infer, the last node is free. */
function jobOf(nodeIndex, device, nodes) {
  const place = nodeIndex / nodes;
  if (place < 0.5) return { job: `train-llama-70b-${Math.floor(nodeIndex / 64)}`, kind: 'batch', profile: 'train' };
  if (place < 0.625) return { job: 'rl-reward-v3', kind: 'batch', profile: 'train' };
  if (place < 0.875) return { job: `chat-serving-${Math.floor(nodeIndex / 32)}`, kind: 'service', profile: 'infer' };
  if (nodeIndex === nodes - 1 && device < 2) return { job: 'notebook/marta', kind: 'interactive', profile: 'infer' };
  return null;
}

export class Fleet {
  constructor({ nodes = 8, gpus = 8, perRack = 4 } = {}) {
    this.start = Math.floor(nowSeconds());
    const width = Math.max(2, String(nodes).length);
    this.nodes = Array.from({ length: nodes }, (_, i) => {
      const rack = `r${String(Math.floor(i / perRack) + 1).padStart(2, '0')}`;
      const name = `n${String(i + 1).padStart(width, '0')}`;
      return {
        name, light: 'green', lostAt: null,
        labels: { rack, switch: `leaf-${Math.floor(i / perRack / 2) + 1}`, power_feed: i % 2 ? 'B' : 'A' },
        gpus: Array.from({ length: gpus }, (_, device) => {
          const held = jobOf(i, device, nodes);
          return {
            node: name, device, light: 'green', job: held?.job ?? null, kind: held?.kind ?? null, profile: held?.profile ?? null,
            uuid: `GPU-${(0x10000000 + i * 4096 + device).toString(16)}-5c1e-4b7a-9f00-${(0xabc000000000 + i * 64 + device).toString(16)}`,
            fault: null, silentFrom: null, gaps: i === 0 && device === 0 ? [[this.start - 1500, this.start - 1260]] : [],
          };
        }),
      };
    });
  }

  node(name) {
    return this.nodes.find((n) => n.name === name);
  }

  gpu(name, device) {
    return this.node(name)?.gpus.find((g) => g.device === Number(device));
  }

  all() {
    return this.nodes.flatMap((n) => n.gpus);
  }

  /** Lights follow the open incidents: red for critical, yellow for warning, grey without data. Returns what changed. */
  relight(incidents, forced = new Map()) {
    const changed = [];
    const open = incidents.filter((i) => i.state === 'firing' || i.state === 'recovering');
    const colour = { critical: 'red', warning: 'yellow' };
    const put = (what, light, node, device, uuid) => {
      if (what.light === light) return;
      what.light = light;
      changed.push({ node, device, uuid, light });
    };
    for (const node of this.nodes) {
      for (const gpu of node.gpus) {
        const touching = open.filter((i) => i.scope.node === node.name && i.scope.device === gpu.device
          || i.scope.devices?.some((g) => g.node === node.name && g.gpu === gpu.device));
        let light = worst(touching.map((i) => colour[i.severity] ?? 'green'));
        if (node.lostAt !== null) light = 'grey';
        if (node.labels.maintenance) light = 'blue';
        put(gpu, forced.get(gpu.uuid) ?? light, node.name, gpu.device, gpu.uuid);
      }
      const own = open.filter((i) => i.scope.node === node.name && i.scope.device === null);
      let light = worst([...own.map((i) => colour[i.severity] ?? 'green'), ...node.gpus.map((g) => g.light)]);
      if (node.labels.maintenance) light = 'blue';
      put(node, light, node.name, null, null);
    }
    return changed;
  }

  nodeView(node) {
    const seen = node.lostAt ?? nowSeconds() - 0.4;
    return {
      name: node.name, light: node.light, last_seen: iso(seen), agent_version: '0.1.0', driver_version: '580.95.05', labels: node.labels,
      gpu_count: node.gpus.length, sample_age_seconds: Math.round((nowSeconds() - seen) * 1000) / 1000, clock_offset_seconds: 0.0013,
    };
  }

  gpuView(gpu) {
    const at = gpu.silentFrom === null ? Math.floor(nowSeconds()) : gpu.silentFrom - 1;
    const metrics = metricsAt(gpu, at) ?? {};
    return { node: gpu.node, device: gpu.device, uuid: gpu.uuid, name: 'NVIDIA H100 80GB HBM3', light: gpu.light, job: gpu.job, sampled_at: iso(at), metrics };
  }

  jobs() {
    const jobs = new Map();
    for (const gpu of this.all().filter((g) => g.job !== null)) {
      const job = jobs.get(gpu.job) ?? { job: gpu.job, kind: gpu.kind, gpus: [], light: 'green', started_at: iso(this.start - 9000 - jobs.size * 40000), state: 'running', lights: [] };
      job.gpus.push({ node: gpu.node, device: gpu.device, uuid: gpu.uuid });
      job.lights.push(gpu.light);
      jobs.set(gpu.job, job);
    }
    return [...jobs.values()].map(({ lights, ...job }) => ({ ...job, light: worst(lights) }));
  }

  series({ metric, node, device, from, to, step }) {
    const gpus = this.all().filter((g) => (node == null || g.node === node) && (device == null || g.device === Number(device)));
    const first = Math.ceil(from / step) * step;
    return {
      metric, unit: metric.split('_').at(-1), step_seconds: step,
      series: gpus.map((gpu) => {
        const points = [];
        for (let t = first; t <= to; t += step) points.push([t, metricsAt(gpu, t)?.[metric] ?? null]);
        return { node: gpu.node, device: gpu.device, uuid: gpu.uuid, points };
      }),
    };
  }
}
