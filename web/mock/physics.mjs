// What a fake GPU shows at an instant: a pure function of (GPU, second), so that history and live agree.

const GIB = 2 ** 30;

/** A number in [0, 1) that depends only on its arguments. */
export function noise(...keys) {
  let h = 2166136261;
  for (const key of keys) {
    for (const char of String(key)) h = Math.imul(h ^ char.charCodeAt(0), 16777619);
    h = Math.imul(h ^ 0x9e37, 16777619);
  }
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  h ^= h >>> 12;
  return (h >>> 0) / 2 ** 32;
}

const wobble = (gpu, what, t, size) => (noise(gpu.uuid, what, t) - 0.5) * 2 * size;
const slow = (gpu, what, t, period, size) => Math.sin((t / period + noise(gpu.uuid, what)) * 2 * Math.PI) * size;

/** Utilization, memory activity and power by what the job does. */
function load(gpu, t) {
  if (gpu.job === null) return { util: 0, mem: 0, watts: 70 + wobble(gpu, 'w', t, 1), used: 0.6 };
  if (gpu.fault?.kind === 'hang' && t >= gpu.fault.at) return { util: 100, mem: 0, watts: 128 + wobble(gpu, 'w', t, 1), used: 71.2 };
  if (gpu.profile === 'infer') {
    const util = 58 + slow(gpu, 'u', t, 900, 18) + wobble(gpu, 'u', t, 9);
    return { util, mem: util * 0.3, watts: 180 + util * 3.1 + wobble(gpu, 'w', t, 14), used: 72.4 };
  }
  const checkpoint = t % 600 < 25;
  if (checkpoint) return { util: 3, mem: 1, watts: 140 + wobble(gpu, 'w', t, 8), used: 66.1 };
  return { util: 97 + wobble(gpu, 'u', t, 3), mem: 41 + wobble(gpu, 'm', t, 4), watts: 672 + slow(gpu, 'p', t, 240, 14) + wobble(gpu, 'w', t, 12), used: 66.1 };
}

/** The metrics of a GPU in second `t`; null when nothing came. */
export function metricsAt(gpu, t) {
  if (gpu.silentFrom !== null && t >= gpu.silentFrom) return null;
  if (gpu.gaps.some(([from, to]) => from <= t && t < to)) return null;
  const { util, mem, watts, used } = load(gpu, t);
  const slot = noise(gpu.uuid, 'slot') * 8;
  let celsius = 30 + slot + watts / 21 + slow(gpu, 'c', t, 500, 1.2);
  let clock = gpu.job === null ? 345 : 1980 - (watts > 600 ? 105 : 0);
  let reasons = gpu.job === null ? 1 : watts > 660 ? 4 : 0;
  let bytes = used * GIB + slow(gpu, 'b', t, 700, 0.3 * GIB);
  if (gpu.fault?.kind === 'hot' && t >= gpu.fault.at) {
    celsius += Math.min(26, (t - gpu.fault.at) / 6);
    if (celsius > 88) [clock, reasons] = [1275 + Math.round(wobble(gpu, 'k', t, 4)) * 15, 0x48];
  }
  if (gpu.fault?.kind === 'memory' && t >= gpu.fault.at) bytes = Math.min(79.3, used + (t - gpu.fault.at) / 45) * GIB;
  const whole = (v, low = 0, high = Infinity) => Math.round(Math.min(high, Math.max(low, v)));
  return {
    temperature_celsius: whole(celsius),
    memory_temperature_celsius: whole(celsius + 9),
    utilization_percent: whole(util, 0, 100),
    memory_utilization_percent: whole(mem, 0, 100),
    memory_used_bytes: whole(bytes),
    memory_total_bytes: whole(79.6 * GIB),
    power_watts: Math.round(Math.max(60, watts) * 10) / 10,
    power_limit_watts: 700,
    power_limit_default_watts: 700,
    energy_joules_total: whole(t * 400),
    sm_clock_mhz: clock,
    memory_clock_mhz: 2619,
    clock_event_reasons: reasons,
    sm_active: gpu.job === null ? 0 : Math.round(util * 8700) / 1e6,
    tensor_active: gpu.job === null ? 0 : Math.round(mem * 11000) / 1e6,
    dram_active: Math.round(mem * 9000) / 1e6,
    pcie_link_width: 16,
    pcie_link_gen: 5,
    nvlink_active_links: 18,
    ecc_corrected_total: whole(noise(gpu.uuid, 'ecc') * 4),
    ecc_uncorrected_total: 0,
    nvml_status: 0,
    nvml_latency_seconds: 0.0004 + noise(gpu.uuid, 'l', t) * 0.0003,
    processes: gpu.job === null ? 0 : 1,
    fan_speed_percent: null,
  };
}
