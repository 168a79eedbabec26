// Which charts a GPU's page shows, and what an incident looks like on them. Knows nothing of who draws.
import { isOpen } from './incidents';
import type { Incident } from './types';

export interface Line {
  metric: string;
  label: string;
  /** A bound, drawn dashed. */
  limit?: boolean;
}

export interface ChartSpec {
  title: string;
  unit: string;
  /** Display units per stored unit. */
  scale: number;
  lines: Line[];
  /** What the vertical axis shows at least. */
  floor: number | null;
  ceiling: number | null;
}

const GIB = 2 ** 30;

export const CHARTS: ChartSpec[] = [
  { title: 'Utilization', unit: '%', scale: 1, floor: 0, ceiling: 100, lines: [{ metric: 'utilization_percent', label: 'kernels' }, { metric: 'memory_utilization_percent', label: 'memory access' }] },
  { title: 'Temperature', unit: '°C', scale: 1, floor: 30, ceiling: 80, lines: [{ metric: 'temperature_celsius', label: 'core' }, { metric: 'memory_temperature_celsius', label: 'memory' }] },
  { title: 'Memory', unit: 'GiB', scale: 1 / GIB, floor: 0, ceiling: null, lines: [{ metric: 'memory_used_bytes', label: 'used' }, { metric: 'memory_total_bytes', label: 'total', limit: true }] },
  { title: 'Power', unit: 'W', scale: 1, floor: 0, ceiling: null, lines: [{ metric: 'power_watts', label: 'board' }, { metric: 'power_limit_watts', label: 'limit', limit: true }] },
  { title: 'SM clock', unit: 'MHz', scale: 1, floor: 0, ceiling: null, lines: [{ metric: 'sm_clock_mhz', label: 'SM' }] },
  { title: 'Engines', unit: '%', scale: 100, floor: 0, ceiling: 100, lines: [{ metric: 'sm_active', label: 'SM' }, { metric: 'tensor_active', label: 'tensor' }, { metric: 'dram_active', label: 'DRAM' }] },
];

/** An incident as a chart shows it: a band from its start to its end, and a line at each turn. */
export interface Mark {
  kind: string;
  severity: string;
  started: number;
  fired: number | null;
  ended: number | null;
}

const seconds = (at: string | null): number | null => (at === null ? null : Date.parse(at) / 1000);

export function markOf(incident: Incident): Mark {
  return {
    kind: incident.kind, severity: incident.severity, started: seconds(incident.started_at) ?? 0, fired: seconds(incident.fired_at),
    ended: isOpen(incident) ? null : seconds(incident.resolved_at),
  };
}
