// What a lamp of a small fleet shows beside its shape: one number, and how full it is.
import { bytes, metricValue } from './format';
import type { CellChoice } from './ui.svelte';
import type { Metrics } from './types';

/** Where the temperature bar is empty and where it is full. */
const COOL_CELSIUS = 25;
const HOT_CELSIUS = 95;

export interface Cell {
  text: string;
  /** 0 to 1; `null` when it cannot be said. */
  fill: number | null;
}

const UNKNOWN: Cell = { text: '–', fill: null };

function share(used: number | null | undefined, of: number | null | undefined): number | null {
  return typeof used === 'number' && typeof of === 'number' && of > 0 ? used / of : null;
}

export function cellOf(choice: CellChoice, metrics: Metrics): Cell {
  if (choice === 'temperature') {
    const celsius = metrics.temperature_celsius;
    return typeof celsius === 'number' ? { text: `${celsius.toFixed(0)}°`, fill: (celsius - COOL_CELSIUS) / (HOT_CELSIUS - COOL_CELSIUS) } : UNKNOWN;
  }
  if (choice === 'power') {
    const watts = metrics.power_watts;
    return typeof watts === 'number' ? { text: metricValue('power_watts', watts).replace('\u00a0', ''), fill: share(watts, metrics.power_limit_watts) } : UNKNOWN;
  }
  if (choice === 'memory') {
    const fill = share(metrics.memory_used_bytes, metrics.memory_total_bytes);
    if (fill !== null) return { text: `${(fill * 100).toFixed(0)}%`, fill };
    return typeof metrics.memory_used_bytes === 'number' ? { text: bytes(metrics.memory_used_bytes), fill: null } : UNKNOWN;
  }
  const percent = metrics.utilization_percent;
  return typeof percent === 'number' ? { text: `${percent.toFixed(0)}%`, fill: percent / 100 } : UNKNOWN;
}
