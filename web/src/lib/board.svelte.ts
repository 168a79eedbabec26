// The incidents that the board holds: the open ones, and the latest that ended.
import { firedAt, isOpen, touches } from './incidents';
import type { Incident } from './types';

/** Ended incidents kept in view; older ones are in the API. */
export const MAX_RECENT = 30;

class Incidents {
  open = $state.raw<Incident[]>([]);
  recent = $state.raw<Incident[]>([]);
  loaded = $state(false);
  /** Counts every change, so that a page that shows one incident knows when to fetch its timeline again. */
  version = $state(0);

  critical = $derived(this.open.filter((i) => i.severity === 'critical').length);

  find(id: string): Incident | undefined {
    return this.open.find((i) => i.id === id) ?? this.recent.find((i) => i.id === id);
  }

  of(target: Parameters<typeof touches>[1]): Incident[] {
    return this.open.filter((i) => touches(i, target));
  }

  replace(open: Incident[], ended: Incident[]): void {
    this.open = open.filter(isOpen);
    this.recent = newestFirst(ended.filter((i) => !isOpen(i)));
    this.loaded = true;
    this.version += 1;
  }

  upsert(incident: Incident): void {
    const open = this.open.filter((i) => i.id !== incident.id);
    const recent = this.recent.filter((i) => i.id !== incident.id);
    this.open = isOpen(incident) ? [...open, incident] : open;
    this.recent = isOpen(incident) ? recent : newestFirst([incident, ...recent]);
    this.version += 1;
  }
}

function newestFirst(ended: Incident[]): Incident[] {
  const when = (i: Incident) => i.resolved_at ?? firedAt(i);
  return ended.toSorted((a, b) => when(b).localeCompare(when(a))).slice(0, MAX_RECENT);
}

export const incidents = new Incidents();
