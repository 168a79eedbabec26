// The fake fleet's incidents: a fixed story told around the moment the mock starts.
import { iso, nowSeconds } from './fleet.mjs';

const ramp = (from, to, n = 24) => Array.from({ length: n }, (_, i) => Math.round(from + ((to - from) * Math.min(i * 1.6, n - 1)) / (n - 1)));
const evidence = (name, value, threshold = null, series = null) => ({ name, value, threshold, series });

export class Incidents {
  constructor(fleet, story = true) {
    this.fleet = fleet;
    this.items = [];
    this.next = 1;
    if (story) this.tell();
  }

  open({ kind, severity, scope, ago, summary, action, ...rest }) {
    const at = nowSeconds() - ago;
    const incident = {
      id: `01JD${String(this.next++).padStart(6, '0')}`, kind, severity, state: 'firing', flags: [], light: severity === 'critical' ? 'red' : 'yellow',
      scope: { node: null, device: null, uuid: null, job: null, ...scope }, labels: {}, summary, action, runbook_url: null,
      started_at: iso(at - 10), fired_at: iso(at), acknowledged_at: null, acknowledged_by: null, resolved_at: null, resolution: null,
      culprits: [], consequence_of: null, evidence: [], missing: [],
      timeline: [{ at: iso(at - 10), what: 'started', who: null, note: null }, { at: iso(at), what: 'fired', who: null, note: null }],
      notifications: [{ receiver: 'oncall', state: 'delivered', attempts: 1, last_error: null, at: iso(at + 0.2) }],
      ...rest,
    };
    this.items.push(incident);
    return incident;
  }

  gpuScope(name, device) {
    const gpu = this.fleet.gpu(name, device);
    return { node: name, device, uuid: gpu.uuid, job: gpu.job };
  }

  tell() {
    const { fleet } = this;
    const name = (i) => fleet.nodes[Math.min(i, fleet.nodes.length - 1)].name;
    const now = Math.floor(nowSeconds());
    const hot = fleet.gpu(name(2), 5);
    hot.fault = { kind: 'hot', at: now - 620 };
    this.open({
      kind: 'ThermalThrottling', severity: 'critical', scope: this.gpuScope(name(2), 5), ago: 418,
      summary: 'Hardware thermal slowdown: clocks cut to 1275 MHz for 6 minutes while its 7 neighbours run at 1875 MHz.',
      action: 'Check fans, coolant and airflow of the chassis; drain the node if the slowdown lasts more than 10 minutes.',
      runbook_url: 'https://runbooks.example.net/gpu/thermal',
      evidence: [evidence('temperature', '94 °C', '90 °C', ramp(66, 94)), evidence('sm_clock', '1275 MHz', '≥ 1584 MHz', ramp(1875, 1275)), evidence('clock_event_reasons', 'HW thermal slowdown')],
      culprits: [{ node: name(2), device: 5, uuid: hot.uuid }],
    });
    const lost = fleet.node(name(6));
    lost.lostAt = now - 95;
    for (const gpu of lost.gpus) gpu.silentFrom = now - 95;
    const cause = this.open({
      kind: 'NodeLost', severity: 'critical', scope: { node: lost.name }, ago: 88, summary: `No frame from ${lost.name} for 95 s and no goodbye; 7 of 8 nodes are on time.`,
      action: 'Ping the host and its BMC. If the BMC answers, read the console and power-cycle; jobs on it must be restarted elsewhere.',
      evidence: [evidence('frame_age', '95 s', '5 s'), evidence('nodes_on_time', '7 of 8')], missing: [`every metric of ${lost.name} since ${iso(now - 95).slice(11, 19)} UTC`],
      culprits: [{ node: lost.name }],
    });
    this.open({
      kind: 'JobStalled', severity: 'critical', scope: { job: lost.gpus[0].job, nodes: [name(5), name(6)] }, ago: 60, consequence_of: cause.id,
      summary: `${lost.gpus[0].job} serves from 8 of 16 GPUs.`, action: 'Follows the lost node.', evidence: [evidence('ranks_working', '8 of 16')],
    });
    for (const device of [0, 1]) {
      this.open({ kind: 'GpuIdle', severity: 'warning', scope: this.gpuScope(name(5), device), ago: 40, consequence_of: cause.id, summary: 'Waits for a peer on the lost node.', action: 'Follows the lost node.' });
    }
    const full = fleet.gpu(name(4), 2);
    full.fault = { kind: 'memory', at: now - 560 };
    this.open({
      kind: 'MemoryPressure', severity: 'warning', scope: this.gpuScope(name(4), 2), ago: 190, summary: 'Memory at 97.9 % and rising 1.3 GiB a minute: full in about a minute.',
      action: 'Tell the owner of the job; lower the batch size or the cache before it runs out.',
      evidence: [evidence('memory_used', '77.9 GiB', '77.2 GiB', ramp(66, 78)), evidence('slope', '+1.3 GiB/min', '> 0')],
    });
    const xid = this.open({
      kind: 'Xid', severity: 'warning', scope: this.gpuScope(name(1), 1), ago: 3300, flags: ['acknowledged'], summary: 'XID 94: contained memory error. The application was told; other processes may go on.',
      action: 'Restart the one application; reset the GPU at the next idle moment.', evidence: [evidence('xid', '94', null), evidence('count_24h', '1')],
      acknowledged_at: iso(now - 3100), acknowledged_by: 'marta', labels: { xid: '94' },
    });
    xid.timeline.push({ at: iso(now - 3100), what: 'acknowledged', who: 'marta', note: 'reset is planned for the 06:00 window' });
    xid.notifications.push({ receiver: 'chat', state: 'dead', attempts: 8, last_error: '404 channel_not_found: the channel was renamed?', at: iso(now - 3290) });
    const done = this.open({ kind: 'PowerBrake', severity: 'critical', scope: { node: name(3) }, ago: 5200, summary: 'Power brake on 8 GPUs of one feed.', action: 'Check the feed.' });
    Object.assign(done, { state: 'resolved', resolved_at: iso(now - 4700) });
    const shut = this.open({ kind: 'GpuIdle', severity: 'warning', scope: this.gpuScope(name(0), 0), ago: 2400, summary: 'Held by a job but idle for 15 minutes.', action: 'Ask the owner.' });
    Object.assign(shut, { state: 'closed', resolved_at: iso(now - 1200), resolution: 'workload' });
    if (fleet.nodes.length > 7) fleet.nodes.at(-1).labels.maintenance = 'until 06:00';
  }

  find(id) {
    return this.items.find((i) => i.id === id);
  }

  static summaryOf({ timeline, notifications, ...rest }) {
    return rest;
  }

  list(query) {
    const state = query.get('state') ?? 'open';
    const isOpen = (i) => i.state === 'firing' || i.state === 'recovering';
    return this.items
      .filter((i) => state === 'all' || isOpen(i) === (state === 'open'))
      .filter((i) => !query.get('node') || i.scope.node === query.get('node') || i.scope.nodes?.includes(query.get('node')))
      .filter((i) => !query.get('job') || i.scope.job === query.get('job'))
      .sort((a, b) => b.fired_at.localeCompare(a.fired_at));
  }

  acknowledge(incident, note, who = 'you') {
    incident.acknowledged_at = iso(nowSeconds());
    incident.acknowledged_by = who;
    incident.flags = [...new Set([...incident.flags, 'acknowledged'])];
    incident.timeline.push({ at: incident.acknowledged_at, what: 'acknowledged', who, note: note ?? null });
  }

  close(incident, reason, note, who = 'you') {
    incident.state = 'closed';
    incident.resolution = reason;
    incident.resolved_at ??= iso(nowSeconds());
    incident.timeline.push({ at: iso(nowSeconds()), what: 'closed', who, note: note ?? null });
  }
}
