// How uPlot is told to draw one chart of a GPU.
import uPlot from 'uplot';
import type { ChartSpec, Mark } from './chart-specs';

/** A drag shorter than this is a click. */
const MIN_DRAG_PX = 8;

export interface Colours {
  text: string;
  grid: string;
  lines: string[];
  limit: string;
  severity: (severity: string) => string;
  resolved: string;
}

/** The theme's colours, read from the page: a canvas knows no style sheet. */
export function coloursOf(element: HTMLElement): Colours {
  const read = (name: string) => {
    element.style.color = `var(${name})`;
    const colour = getComputedStyle(element).color;
    element.style.color = '';
    return colour;
  };
  return {
    text: read('--dim'), grid: read('--grid'), lines: [read('--series-1'), read('--series-2'), read('--series-3')], limit: read('--faint'), resolved: read('--green'),
    severity: (severity) => read(severity === 'critical' ? '--red' : severity === 'warning' ? '--yellow' : '--blue'),
  };
}

function drawMarks(u: uPlot, marks: Mark[], colours: Colours): void {
  const { ctx, bbox } = u;
  const px = devicePixelRatio;
  const at = (t: number) => Math.min(bbox.left + bbox.width, Math.max(bbox.left, u.valToPos(t, 'x', true)));
  const inView = (t: number) => t >= (u.scales.x?.min ?? 0) && t <= (u.scales.x?.max ?? 0);
  const line = (t: number, colour: string, dash: number[]) => {
    if (!inView(t)) return;
    ctx.strokeStyle = colour;
    ctx.setLineDash(dash.map((d) => d * px));
    ctx.beginPath();
    ctx.moveTo(at(t), bbox.top);
    ctx.lineTo(at(t), bbox.top + bbox.height);
    ctx.stroke();
  };
  ctx.save();
  ctx.lineWidth = px;
  for (const mark of marks) {
    const colour = colours.severity(mark.severity);
    const [x0, x1] = [at(mark.started), at(mark.ended ?? Infinity)];
    if (x1 <= x0) continue;
    ctx.globalAlpha = 0.1;
    ctx.fillStyle = colour;
    ctx.fillRect(x0, bbox.top, x1 - x0, bbox.height);
    ctx.globalAlpha = 0.9;
    line(mark.started, colour, [2, 3]);
    if (mark.fired !== null) line(mark.fired, colour, []);
    if (mark.ended !== null) line(mark.ended, colours.resolved, []);
  }
  ctx.restore();
}

export interface ChartHooks {
  cursor(index: number | null): void;
  marks(): Mark[];
  /** A stretch of seconds was chosen by dragging, or all of it again by a double click. */
  zoom(stretch: [number, number] | null): void;
}

export function optionsOf(spec: ChartSpec, size: { width: number; height: number }, colours: Colours, hooks: ChartHooks): uPlot.Options {
  const font = '11px system-ui, sans-serif';
  const axis = { stroke: colours.text, font, grid: { stroke: colours.grid, width: 1 }, ticks: { stroke: colours.grid, width: 1, size: 4 } };
  return {
    ...size,
    legend: { show: false },
    padding: [8, 10, 0, 0],
    cursor: { sync: { key: 'gpu' }, points: { size: 6 }, drag: { x: true, y: false, setScale: false }, y: false },
    scales: {
      x: { time: true },
      y: { range: (_u, min, max) => [Math.min(spec.floor ?? min ?? 0, min ?? 0), Math.max(spec.ceiling ?? 0, (max ?? 1) * (spec.ceiling === null ? 1.05 : 1)) || 1] },
    },
    axes: [
      { ...axis, size: 26, space: 70, values: (_u, ticks) => ticks.map((t) => new Date(t * 1000).toTimeString().slice(0, ticks.length > 1 && (ticks[1] ?? 0) - (ticks[0] ?? 0) < 60 ? 8 : 5)) },
      { ...axis, size: 44, space: 28, values: (_u, ticks) => ticks.map((t) => String(t)) },
    ],
    series: [
      {},
      ...spec.lines.map((line, i): uPlot.Series => {
        const stroke = line.limit ? colours.limit : colours.lines[i];
        return { label: line.label, stroke, width: line.limit ? 1 : 1.5, dash: line.limit ? [6, 4] : undefined, points: { show: false }, spanGaps: false };
      }),
    ],
    hooks: {
      drawClear: [(u) => drawMarks(u, hooks.marks(), colours)],
      setCursor: [(u) => hooks.cursor(u.cursor.left === undefined || u.cursor.left < 0 ? null : (u.cursor.idx ?? null))],
      setSelect: [
        (u) => {
          if (u.select.width < MIN_DRAG_PX) return;
          hooks.zoom([u.posToVal(u.select.left, 'x'), u.posToVal(u.select.left + u.select.width, 'x')]);
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
      ready: [(u) => u.over.addEventListener('dblclick', () => hooks.zoom(null))],
    },
  };
}
