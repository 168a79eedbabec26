// Server-sent events out of a byte stream. Pure: text in, events out. `EventSource` cannot send a bearer token.

export interface SseEvent {
  name: string;
  data: string;
  id: string | null;
}

export class SseParser {
  private rest = '';
  private name = '';
  private data: string[] = [];
  private id: string | null = null;

  /** Takes the next piece of text; returns the events that it completes. Comments complete none. */
  push(text: string): SseEvent[] {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? '';
    return lines.map((line) => this.line(line)).filter((event) => event !== null);
  }

  private line(line: string): SseEvent | null {
    if (line === '') return this.finish();
    const colon = line.indexOf(':');
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.name = value;
    if (field === 'data') this.data.push(value);
    if (field === 'id') this.id = value;
    return null;
  }

  private finish(): SseEvent | null {
    const event = this.data.length ? { name: this.name || 'message', data: this.data.join('\n'), id: this.id } : null;
    this.name = '';
    this.data = [];
    return event;
  }
}
