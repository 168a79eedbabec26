// Which incident stands where: order, folding of consequences, names of places. Pure.
import type { Culprit, Incident, Scope } from './types';

export const SEVERITIES = ['critical', 'warning', 'info'] as const;

export const severityRank = (severity: string): number => {
  const rank = (SEVERITIES as readonly string[]).indexOf(severity);
  return rank < 0 ? SEVERITIES.length : rank;
};

export const isOpen = (incident: Incident): boolean => incident.state === 'firing' || incident.state === 'recovering';
export const isAcknowledged = (incident: Incident): boolean => incident.acknowledged_at !== null || incident.flags.includes('acknowledged');
export const firedAt = (incident: Incident): string => incident.fired_at ?? incident.started_at;

/** Critical first; what nobody has taken before what somebody has; then the newest. */
export function byUrgency(a: Incident, b: Incident): number {
  return (
    severityRank(a.severity) - severityRank(b.severity) ||
    Number(isAcknowledged(a)) - Number(isAcknowledged(b)) ||
    firedAt(b).localeCompare(firedAt(a)) ||
    a.id.localeCompare(b.id)
  );
}

/** How it stands, with why it ended. */
export function standing(incident: Incident): string {
  const why = incident.close_reason ?? incident.resolution;
  if (isOpen(incident)) return isAcknowledged(incident) ? 'acknowledged' : incident.state;
  return why === null || why === incident.state ? incident.state : `${incident.state}: ${why.replaceAll('_', ' ')}`;
}

/** A person may still say why one ended that went away by itself. */
export const canClose = (incident: Incident): boolean => incident.state !== 'closed';

export interface Story {
  incident: Incident;
  consequences: Incident[];
}

/** Open incidents as stories: each consequence folded under its root cause, if that is here too. */
export function fold(incidents: Incident[]): Story[] {
  const byId = new Map(incidents.map((i) => [i.id, i]));
  const stories = new Map<string, Story>();
  const rest: [Incident, string][] = [];
  for (const incident of incidents) {
    const root = rootOf(incident, byId);
    if (root === incident.id) stories.set(root, { incident, consequences: [] });
    else rest.push([incident, root]);
  }
  for (const [incident, root] of rest) stories.get(root)?.consequences.push(incident);
  for (const story of stories.values()) story.consequences.sort(byUrgency);
  return [...stories.values()].sort((a, b) => byUrgency(a.incident, b.incident));
}

/** The last known cause up the chain. A ring of causes has none: each stands for itself. */
function rootOf(incident: Incident, byId: Map<string, Incident>): string {
  const seen = new Set<string>();
  let at = incident;
  for (;;) {
    const cause = at.consequence_of === null ? undefined : byId.get(at.consequence_of);
    if (!cause) return at.id;
    if (seen.has(at.id)) return incident.id;
    seen.add(at.id);
    at = cause;
  }
}

export interface Place {
  text: string;
  href: string | null;
}

export const nodeHref = (node: string) => `/nodes/${encodeURIComponent(node)}`;
export const gpuHref = (node: string, device: number) => `${nodeHref(node)}/gpus/${device}`;
export const jobHref = (job: string) => `/jobs/${encodeURIComponent(job)}`;
export const incidentHref = (id: string) => `/incidents/${encodeURIComponent(id)}`;

/** Where an incident is, smallest place first. */
export function places(scope: Scope, withJob = true, called = (node: string) => node): Place[] {
  const found: Place[] = [];
  if (scope.node != null && scope.device != null) found.push({ text: `${called(scope.node)} GPU ${scope.device}`, href: gpuHref(scope.node, scope.device) });
  else if (scope.node != null) found.push({ text: called(scope.node), href: nodeHref(scope.node) });
  else if (scope.gpus?.length) found.push(...byNode(scope.gpus, called));
  else if (scope.nodes?.length) found.push(...scope.nodes.map((n) => ({ text: called(n), href: nodeHref(n) })));
  if (scope.job != null && (withJob || found.length === 0)) found.push({ text: scope.job, href: jobHref(scope.job) });
  return found.length ? found : [{ text: 'the whole fleet', href: null }];
}

/** One place a node: its GPU, or how many of them. */
function byNode(gpus: { node: string; device: number }[], called: (node: string) => string): Place[] {
  const nodes = new Map<string, number[]>();
  for (const { node, device } of gpus) nodes.set(node, [...(nodes.get(node) ?? []), device]);
  return [...nodes].map(([node, [device, ...more]]) => more.length
    ? { text: `${called(node)} ${more.length + 1} GPUs`, href: nodeHref(node) }
    : { text: `${called(node)} GPU ${device}`, href: gpuHref(node, device!) });
}

export function culpritPlace(culprit: Culprit): Place {
  if (typeof culprit === 'string') return { text: culprit, href: null };
  const device = culprit.device ?? null;
  const [place] = places({ node: culprit.node, device, job: culprit.node == null ? culprit.job : null });
  const text = culprit.node == null && culprit.job == null ? (culprit.uuid ?? 'unknown') : (place?.text ?? 'unknown');
  return { text: culprit.reason ? `${text} (${culprit.reason})` : text, href: text === place?.text ? place.href : null };
}

/** Whether an incident is about this node, this GPU of it, or this job. */
export function touches(incident: Incident, target: { node?: string; device?: number; job?: string }): boolean {
  const { scope } = incident;
  if (target.job !== undefined) return scope.job === target.job;
  const onNode = scope.node === target.node || (scope.nodes?.includes(target.node ?? '') ?? false);
  const named = scope.gpus?.filter((g) => g.node === target.node) ?? [];
  if (target.device === undefined) return onNode || named.length > 0;
  if (named.some((g) => g.device === target.device)) return true;
  return onNode && (scope.device == null || scope.device === target.device) && !scope.gpus?.length;
}
