// What the board decides without a browser: the event stream's bytes, order and folding, filters, words, gaps.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createServer } from 'vite';

let vite;
let lib;

before(async () => {
  const root = fileURLToPath(new URL('..', import.meta.url));
  vite = await createServer({ root, configFile: false, logLevel: 'error', server: { middlewareMode: true, ws: false, watch: null }, appType: 'custom', optimizeDeps: { noDiscovery: true } });
  const load = (name) => vite.ssrLoadModule(`/src/lib/${name}.ts`);
  lib = Object.assign({}, ...(await Promise.all(['sse', 'incidents', 'names', 'filter', 'format', 'series', 'stream', 'cells'].map(load))));
});
after(() => vite?.close());

test('an event stream cut at any byte gives the same events', () => {
  const text = ': hi\n\nevent: light\nid: 7\ndata: {"a":\ndata: 1}\n\n: keep-alive\n\r\nevent: incident\r\ndata: {}\r\n\r\n';
  const expected = [{ name: 'light', data: '{"a":\n1}', id: '7' }, { name: 'incident', data: '{}', id: '7' }];
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new lib.SseParser();
    assert.deepEqual([...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))], expected, `cut at ${cut}`);
  }
});

test('waits between attempts double, jitter, and stay below twenty seconds', () => {
  assert.deepEqual([1, 2, 3, 4].map((n) => lib.backoffMs(n, 0.5)), [500, 1000, 2000, 4000]);
  assert.ok(lib.backoffMs(50, 0.999) < 20_000);
  assert.ok(lib.backoffMs(1, 0) < lib.backoffMs(1, 0.9));
});

/** `id severity cause` in a line each; `!` after the severity: acknowledged. Newer first by id. */
function check(lines, expected) {
  const incidents = lines.map((line) => {
    const [id, severity, cause = null] = line.split(' ');
    return { id, severity: severity.replace('!', ''), flags: severity.endsWith('!') ? ['acknowledged'] : [], acknowledged_at: null, fired_at: `2026-01-01T00:00:0${id}Z`, consequence_of: cause };
  });
  const told = lib.fold(incidents).map((s) => s.incident.id + (s.consequences.length ? `(${s.consequences.map((c) => c.id).join(' ')})` : ''));
  assert.equal(told.join(' '), expected);
}

test('critical comes first, what nobody has before what somebody has, then the newest; consequences fold under their root', () => {
  check(['1 warning', '2 critical', '3 critical'], '3 2 1');
  check(['1 critical!', '2 critical', '3 info', '4 warning'], '2 1 4 3');
  check(['1 critical', '2 warning 1', '3 critical 2'], '1(3 2)');
  check(['2 warning 9'], '2');
  check(['1 warning 2', '2 warning 1'], '2 1');
});

test('a filter wants all its words, and one of its lights', () => {
  const found = (input, text, light) => lib.matches(lib.parseFilter(input), { text, light });
  assert.ok(found('N01 llama', 'n01 train-llama', 'green'));
  assert.ok(!found('n01 chat', 'n01 train-llama', 'green'));
  assert.ok(found('light:red light:grey', 'n01', 'grey'));
  assert.ok(!found('light:red', 'n01', 'green'));
  assert.equal(lib.toggleLight('n01', 'red'), 'n01 light:red');
  assert.equal(lib.toggleLight('light:red n01', 'red'), 'n01');
});

test('an incident touches its GPU, its whole node when it names no GPU, and nothing else', () => {
  const touches = (scope, target) => lib.touches({ scope }, target);
  assert.ok(touches({ node: 'n1', device: 3 }, { node: 'n1', device: 3 }));
  assert.ok(!touches({ node: 'n1', device: 3 }, { node: 'n1', device: 4 }));
  assert.ok(touches({ node: 'n1', device: null }, { node: 'n1', device: 4 }));
  assert.ok(touches({ job: 'j', gpus: [{ node: 'n2', device: 0 }] }, { node: 'n2', device: 0 }));
  assert.ok(!touches({ job: 'j', gpus: [{ node: 'n2', device: 0 }] }, { node: 'n2', device: 1 }));
});

test('node names lose what all of them share, and still differ', () => {
  const short = (names) => [...lib.shortNames(names).values()].join(' ');
  assert.equal(short(['n01', 'n02']), 'n01 n02');
  assert.equal(short(['gpu-1.a.example', 'gpu-2.a.example']), 'gpu-1 gpu-2');
  assert.equal(short(['gpu-h100-pool-b-n01.x', 'gpu-h100-pool-b-n12.x']), '…n01 …n12');
  assert.equal(short(['gpu-h100-pool-b-n01.x']), 'gpu-h100-pool-b-n01.x');
  assert.equal(short(['a-very-long-node-name-1', 'b']), 'a-very-long-node-name-1 b');
});

test('numbers carry units, absence is a dash and never a zero', () => {
  const said = (metric, value) => lib.metricValue(metric, value).replace(/[\u00a0\u202f]/g, ' ');
  assert.equal(said('memory_used_bytes', 71_045_455_182), '66.2 GiB');
  assert.equal(said('temperature_celsius', 94), '94 °C');
  assert.equal(said('power_watts', 671.5), '672 W');
  assert.equal(said('sm_active', 0.8219), '82 %');
  assert.equal(said('clock_event_reasons', 0x48), 'HW slowdown, HW thermal');
  assert.equal(said('nvml_latency_seconds', 0.00067), '0.7 ms');
  assert.equal(said('temperature_celsius', null), '–');
  assert.equal(said('temperature_celsius', undefined), '–');
  assert.equal(said('ecc_corrected_total', 1_234_567), '1 234 567');
  assert.deepEqual(['sm_clock_mhz', 'pcie_tx_bytes_total', 'process_cpu_seconds_total', 'memory_used_bytes'].map(lib.metricLabel), ['SM clock', 'PCIe tx', 'Process CPU', 'Memory used']);
  assert.deepEqual(lib.cellOf('utilization', {}), { text: '–', fill: null });
});

test('ages have two units at most', () => {
  const aged = (s) => lib.duration(s).replace(/\u00a0/g, ' ');
  assert.deepEqual([0.4, 59, 61, 700, 7500, 100_000].map(aged), ['0 s', '59 s', '1 min 01 s', '11 min', '2 h 05 min', '1 d 3 h']);
});

test('a hole in a series is a gap, the rhythm of a slow metric is not', () => {
  const every = (step, from, to) => Array.from({ length: (to - from) / step }, (_, i) => [from + i * step, 1]);
  const holes = (points) => lib.withGaps(points, 1).filter(([, v]) => v === null).length;
  assert.equal(holes(every(1, 0, 100)), 0);
  assert.equal(holes(every(10, 0, 600)), 0);
  assert.equal(holes([...every(1, 0, 50), ...every(1, 60, 100)]), 1);
  assert.equal(holes([...every(1, 0, 50), ...Array.from({ length: 9 }, (_, i) => [50 + i, null]), ...every(1, 60, 100)]), 1);
});

test('fast and slow lines share a chart: the slow one is joined between its points', () => {
  const [times, fast, slow] = lib.align([[[0, 1], [1, 2], [2, 3]], [[0, 5], [2, 6]]], 1, 10);
  assert.deepEqual([times, fast, slow], [[0, 1, 2], [10, 20, 30], [50, undefined, 60]]);
});

test('live points are added in order and the old ones go', () => {
  const points = lib.append(lib.append([[0, 1], [50, 1]], [100, 2], 60), [90, 9], 60);
  assert.deepEqual(points, [[50, 1], [100, 2]]);
});

test('a chart shows an hour, or less while the history is younger', () => {
  assert.deepEqual([[null, 0], [0, 100], [0, 700], [0, 9999]].map(([first, now]) => lib.rangeFor(first, now)), [3600, 300, 900, 3600]);
});
