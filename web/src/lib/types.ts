// The JSON of `/api/v1`, as the board uses it. Unknown is `null`.

export type Light = 'green' | 'yellow' | 'red' | 'grey' | 'blue';

export interface Node {
  name: string;
  light: Light;
  last_seen: string | null;
  agent_version: string | null;
  driver_version: string | null;
  labels: Record<string, string>;
  gpu_count: number;
  sample_age_seconds: number | null;
  clock_offset_seconds: number | null;
}

export type Metrics = Record<string, number | null>;

export interface Gpu {
  node: string;
  device: number;
  uuid: string;
  name: string | null;
  light: Light;
  job: string | null;
  sampled_at: string | null;
  metrics: Metrics;
}

export interface Job {
  job: string;
  kind: string | null;
  gpus: { node: string; device: number; uuid: string }[];
  light: Light;
  started_at: string | null;
  state: string | null;
}

export interface Series {
  metric: string;
  unit: string;
  step_seconds: number;
  series: { node: string; device: number; uuid: string; points: [number, number | null][] }[];
}

export interface Scope {
  node?: string | null;
  device?: number | null;
  uuid?: string | null;
  job?: string | null;
  nodes?: string[];
  gpus?: { node: string; device: number }[];
}

export interface Evidence {
  name: string;
  value: string;
  threshold?: string | null;
  series?: (number | null)[] | null;
}

/** Whom the rule blames: a GPU, a node, or only words. */
export type Culprit = string | { node?: string | null; device?: number | null; uuid?: string | null; job?: string | null; reason?: string | null };

export interface Incident {
  id: string;
  kind: string;
  severity: string;
  state: 'firing' | 'recovering' | 'resolved' | 'closed';
  flags: string[];
  light: Light;
  scope: Scope;
  labels: Record<string, string>;
  summary: string;
  action: string | null;
  runbook_url?: string | null;
  started_at: string;
  fired_at: string | null;
  acknowledged_at: string | null;
  acknowledged_by: string | null;
  resolved_at: string | null;
  resolution: string | null;
  close_reason?: string | null;
  culprits: Culprit[];
  consequence_of: string | null;
  evidence: Evidence[];
  missing?: string[];
}

export interface TimelineEntry {
  at: string;
  what: string;
  who: string | null;
  note: string | null;
}

export interface Notification {
  receiver: string;
  state: string;
  attempts?: number | null;
  last_error?: string | null;
  at?: string | null;
  created_at?: string | null;
  delivered_at?: string | null;
}

export interface IncidentDetail extends Incident {
  timeline: TimelineEntry[];
  notifications: Notification[];
}

export type CloseReason = 'hardware' | 'workload' | 'false_alarm' | 'other';

export interface Page<T> {
  items: T[];
  next: string | null;
}

/** What the event stream says, by the event's name. */
export interface StreamEvents {
  hello: { cluster: string; version: string; now: string };
  light: { lights: { node: string; device: number | null; uuid: string | null; light: Light }[] };
  incident: Incident;
  sample: { node: string; at: string; gpus: { device: number; uuid: string; metrics: Metrics }[] };
  lagged: { skipped: number };
}
