// Numbers, ages and times for people. Pure. Absence is a dash, never a zero.

export const ABSENT = '–';
const NBSP = '\u00a0';

const pad = (n: number, width = 2) => String(n).padStart(width, '0');
const unit = (n: string, u: string) => `${n}${NBSP}${u}`;

/** `1234567` as `1 234 567`, with a thin space. */
function grouped(n: number): string {
  return Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

function scaled(n: number, base: number, units: string[]): string {
  const step = n === 0 ? 0 : Math.min(units.length - 1, Math.max(0, Math.floor(Math.log(Math.abs(n)) / Math.log(base))));
  const value = n / base ** step;
  return unit(step === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1), units[step] ?? '');
}

export const bytes = (n: number) => scaled(n, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);

const CLOCK_REASONS: [number, string][] = [
  [0x1, 'idle'], [0x2, 'set by user'], [0x4, 'power cap'], [0x8, 'HW slowdown'], [0x10, 'sync boost'],
  [0x20, 'SW thermal'], [0x40, 'HW thermal'], [0x80, 'power brake'],
];

/** The bits of `clock_event_reasons` in words. */
export function clockReasons(bits: number): string {
  const words = CLOCK_REASONS.filter(([bit]) => (bits & bit) !== 0).map(([, word]) => word);
  return words.length ? words.join(', ') : 'none';
}

const NVML_STATUS = ['OK', 'GPU is lost', 'timeout', 'not found', 'unknown error', 'reset required'];
const PROCESS_STATE = ['running', 'sleeping', 'blocked', 'stopped'];
const SPECIAL: Record<string, (n: number) => string> = {
  clock_event_reasons: clockReasons,
  nvml_status: (n) => NVML_STATUS[n] ?? String(n),
  process_state: (n) => PROCESS_STATE[n] ?? String(n),
  pcie_link_width: (n) => `×${n}`,
  pcie_link_gen: (n) => `gen ${n}`,
};

const BY_SUFFIX: [string, (n: number) => string][] = [
  ['_celsius', (n) => unit(n.toFixed(0), '°C')],
  ['_percent', (n) => unit(n.toFixed(0), '%')],
  ['_active', (n) => unit((n * 100).toFixed(0), '%')],
  ['_watts', (n) => unit(n.toFixed(0), 'W')],
  ['_mhz', (n) => unit(n.toFixed(0), 'MHz')],
  ['_bytes', bytes],
  ['_bytes_total', bytes],
  ['_joules_total', (n) => scaled(n / 3600, 1000, ['Wh', 'kWh', 'MWh'])],
  ['_seconds_total', duration],
  ['_seconds', (n) => (n < 1 ? unit((n * 1000).toFixed(1), 'ms') : duration(n))],
];

/** A metric's value with its unit, by the metric's name. */
export function metricValue(metric: string, value: number | null | undefined): string {
  if (value === null || value === undefined) return ABSENT;
  const special = SPECIAL[metric];
  if (special) return special(value);
  const row = BY_SUFFIX.find(([suffix]) => metric.endsWith(suffix));
  return row ? row[1](value) : grouped(value);
}

const PROPER: Record<string, string> = { sm: 'SM', pcie: 'PCIe', ecc: 'ECC', nvml: 'NVML', crc: 'CRC', cpu: 'CPU', dram: 'DRAM', nvlink: 'NVLink' };

/** `sm_clock_mhz` as `SM clock`. */
export function metricLabel(metric: string): string {
  const words = metric.replace(/(_(bytes|joules|seconds|celsius|percent|watts|mhz))?(_total)?$/, '').split('_');
  const text = words.map((word) => PROPER[word] ?? word).join(' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A length of time with its two largest units. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return unit(String(s), 's');
  if (s < 3600) return `${unit(String(Math.floor(s / 60)), 'min')}${s < 600 ? ` ${unit(pad(s % 60), 's')}` : ''}`;
  if (s < 86_400) return `${unit(String(Math.floor(s / 3600)), 'h')} ${unit(pad(Math.floor((s % 3600) / 60)), 'min')}`;
  return `${unit(String(Math.floor(s / 86_400)), 'd')} ${unit(String(Math.floor((s % 86_400) / 3600)), 'h')}`;
}

/** An offset or a latency: signed, in milliseconds under a second. */
export function offset(seconds: number | null): string {
  if (seconds === null) return ABSENT;
  const sign = seconds < 0 ? '−' : '+';
  const size = Math.abs(seconds);
  return sign + (size < 1 ? unit((size * 1000).toFixed(0), 'ms') : size < 60 ? unit(size.toFixed(1), 's') : duration(size));
}

/** Local wall time of day. */
export const timeOfDay = (at: Date) => `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;

/** Local wall time; the date only if it is not today's. */
export function localTime(at: Date, now = new Date()): string {
  const time = timeOfDay(at);
  if (at.toDateString() === now.toDateString()) return time;
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}

export function utcTime(at: Date): string {
  return `${at.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${grouped(n)} ${n === 1 ? one : many}`;
}
