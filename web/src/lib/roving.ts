// Where the arrow keys lead in the lamp grid: by what the eye sees, whatever the order in the document.

/** The cell that a key leads to from `cell`; none at the edge, or for another key. */
export function nextCell(cells: HTMLElement[], cell: HTMLElement, key: string): HTMLElement | null {
  const at = cells.indexOf(cell);
  const row = cell.parentElement;
  const inRow = cells.filter((c) => c.parentElement === row);
  switch (key) {
    case 'ArrowRight':
      return cells[at + 1] ?? null;
    case 'ArrowLeft':
      return cells[at - 1] ?? null;
    case 'Home':
      return inRow[0] ?? null;
    case 'End':
      return inRow.at(-1) ?? null;
    case 'ArrowDown':
      return nearest(cells, cell, 1);
    case 'ArrowUp':
      return nearest(cells, cell, -1);
    default:
      return null;
  }
}

/** The nearest line of cells above or below, and in it the cell closest to this one's middle. */
function nearest(cells: HTMLElement[], cell: HTMLElement, direction: 1 | -1): HTMLElement | null {
  const from = cell.getBoundingClientRect();
  const middle = (box: DOMRect) => box.left + box.width / 2;
  let best: { cell: HTMLElement; down: number; aside: number } | null = null;
  for (const candidate of cells) {
    const box = candidate.getBoundingClientRect();
    const down = (box.top + box.height / 2 - from.top - from.height / 2) * direction;
    if (down < from.height / 2) continue;
    const aside = Math.abs(middle(box) - middle(from));
    if (!best || down < best.down - 4 || (down < best.down + 4 && aside < best.aside)) best = { cell: candidate, down, aside };
  }
  return best?.cell ?? null;
}
