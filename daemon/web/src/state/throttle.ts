/** Runs `action` soon, but never more often than every `intervalMs`, and never two at once. */
export class Throttle {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastStart = -Infinity;
  #isRunning = false;
  #isWanted = false;
  #isStopped = false;

  constructor(
    private readonly action: () => void | Promise<void>,
    private readonly intervalMs: number,
    private readonly now: () => number = Date.now,
  ) {}

  request(): void {
    this.#isWanted = true;
    if (this.#timer !== undefined || this.#isRunning || this.#isStopped) return;
    const wait = Math.max(0, this.#lastStart + this.intervalMs - this.now());
    this.#timer = setTimeout(() => void this.#run(), wait);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    this.#timer = undefined;
    this.#isWanted = false;
    this.#isRunning = true;
    this.#lastStart = this.now();
    try {
      await this.action();
    } finally {
      this.#isRunning = false;
      if (this.#isWanted) this.request();
    }
  }
}
