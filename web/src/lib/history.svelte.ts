// The last hour of one GPU, metric by metric: fetched once, carried on by the live samples.
import { get, messageOf } from './api';
import { CHARTS } from './chart-specs';
import { align, append, type Columns, type Point } from './series';
import type { Series, StreamEvents } from './types';

export const HORIZON_SECONDS = 3600;
const METRICS = [...new Set(CHARTS.flatMap((c) => c.lines.map((l) => l.metric)))];

export class History {
  loaded = $state(false);
  error = $state<string | null>(null);
  /** The columns of each chart, in the order of `CHARTS`. */
  columns = $state.raw<Columns[]>(CHARTS.map((c) => align(c.lines.map(() => []), 1)));
  /** The oldest known point, in seconds. */
  first = $state<number | null>(null);
  private points = new Map<string, Point[]>();
  private step = 1;
  private loading = false;
  private abort = new AbortController();

  constructor(
    private readonly node: string,
    private readonly device: number,
  ) {}

  /** Fetches the hour, again after a hole: what was missed here the agent has kept. */
  async load(): Promise<void> {
    if (this.loading) return;
    this.loading = true;
    const place = `node=${encodeURIComponent(this.node)}&device=${this.device}&from=-1h`;
    try {
      const answers = await Promise.all(METRICS.map((metric) => get<Series>(`series?metric=${metric}&${place}`, this.abort.signal)));
      for (const answer of answers) {
        const fetched = answer.series.flatMap((s) => s.points).sort((a, b) => a[0] - b[0]);
        const end = fetched.at(-1)?.[0] ?? 0;
        const newer = (this.points.get(answer.metric) ?? []).filter(([t]) => t > end);
        this.points.set(answer.metric, [...fetched, ...newer]);
        this.step = answer.step_seconds || this.step;
      }
      this.error = null;
      this.loaded = true;
      this.redraw();
    } catch (error) {
      if (!this.abort.signal.aborted) this.error = messageOf(error);
    } finally {
      this.loading = false;
    }
  }

  take(sample: StreamEvents['sample']): void {
    const mine = sample.node === this.node ? sample.gpus.find((g) => g.device === this.device) : undefined;
    if (!mine) return;
    const at = Date.parse(sample.at) / 1000;
    for (const metric of METRICS) {
      const value = mine.metrics[metric];
      if (value !== undefined) this.points.set(metric, append(this.points.get(metric) ?? [], [at, value], HORIZON_SECONDS));
    }
    if (this.loaded) this.redraw();
  }

  stop(): void {
    this.abort.abort();
  }

  private redraw(): void {
    this.columns = CHARTS.map((c) => align(c.lines.map((l) => this.points.get(l.metric) ?? []), this.step, c.scale));
    const firsts = this.columns.map((c) => c[0][0]).filter((t) => t !== undefined);
    this.first = firsts.length ? Math.min(...firsts) : null;
  }
}
