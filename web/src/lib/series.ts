// Points of several metrics as the columns of one chart, with gaps as gaps. Pure.

export type Point = [seconds: number, value: number | null];
export type Columns = [times: number[], ...values: (number | null | undefined)[][]];

/** A hole longer than this many usual spacings is a gap and is drawn as one. */
const GAP_SPACINGS = 2.5;

/** The spacing that most neighbours have; slow metrics come every tenth tick. */
function usualSpacing(times: number[], step: number): number {
  const spacings = times.slice(1).map((t, i) => t - (times[i] ?? t));
  spacings.sort((a, b) => a - b);
  return Math.max(step, spacings[Math.floor(spacings.length / 2)] ?? step);
}

/** The points that carry a value, and a `null` inside each hole between them. */
export function withGaps(points: Point[], step: number): Point[] {
  const known = points.filter(([, value]) => value !== null);
  const hole = GAP_SPACINGS * usualSpacing(known.map(([t]) => t), step);
  const out: Point[] = [];
  let before: number | null = null;
  for (const point of known) {
    if (before !== null && point[0] - before > hole) out.push([(before + point[0]) / 2, null]);
    out.push(point);
    before = point[0];
  }
  return out;
}

/** One column of times, and for each list its values: `null` breaks the line, `undefined` does not. */
export function align(lists: Point[][], step: number, scale = 1): Columns {
  const gapped = lists.map((points) => withGaps(points, step));
  const times = [...new Set(gapped.flatMap((points) => points.map(([t]) => t)))].sort((a, b) => a - b);
  const columns = gapped.map((points) => {
    const at = new Map(points);
    return times.map((t) => {
      const value = at.get(t);
      return typeof value === 'number' ? value * scale : value;
    });
  });
  return [times, ...columns];
}

/** Adds a live point behind the known ones and forgets what is older than `horizon` seconds. */
export function append(points: Point[], point: Point, horizon: number): Point[] {
  const last = points.at(-1);
  if (last && point[0] <= last[0]) return points;
  const from = point[0] - horizon;
  const first = points.findIndex(([t]) => t >= from);
  return [...points.slice(Math.max(0, first)), point];
}

export const RANGES = [
  { label: '5 min', seconds: 300 },
  { label: '15 min', seconds: 900 },
  { label: '1 h', seconds: 3600 },
] as const;

/** The shortest range that shows all there is: an hour, unless the history is younger. */
export function rangeFor(firstPoint: number | null, now: number): number {
  const age = firstPoint === null ? Infinity : now - firstPoint;
  return RANGES.find((r) => age <= r.seconds)?.seconds ?? 3600;
}
