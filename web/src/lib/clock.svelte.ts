// The time that ages are counted from: the server's, as it was at the last hello, ticking here.

class Clock {
  /** Milliseconds since the epoch, moved on once a second. */
  now = $state(Date.now());
  private offset = 0;

  /** Takes over the server's time, so that a wrong clock here makes no age wrong. */
  sync(serverNow: string): void {
    const server = Date.parse(serverNow);
    if (!Number.isNaN(server)) this.offset = server - Date.now();
    this.tick();
  }

  /** Now, by the server's clock, in milliseconds. */
  exact(): number {
    return Date.now() + this.offset;
  }

  tick(): void {
    this.now = this.exact();
  }

  start(): () => void {
    const timer = setInterval(() => this.tick(), 1000);
    return () => clearInterval(timer);
  }
}

export const clock = new Clock();
