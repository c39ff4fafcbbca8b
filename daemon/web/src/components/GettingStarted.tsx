/** What a hub without data shows. */

import type { JSX } from "preact";

const EXAMPLE = `import math, random, time
import trackd

run = trackd.init(project="demo", config={"lr": 0.01})
for step in range(300):
    loss = math.exp(-step / 80) + random.gauss(0, 0.02)
    run.log({"train/loss": loss, "train/acc": 1 - loss})
    time.sleep(0.05)
run.finish()`;

export function GettingStarted(): JSX.Element {
  return (
    <section class="started">
      <h2>No runs yet</h2>
      <p>Save this as train.py, run it beside this page, and watch the curves arrive:</p>
      <pre>
        <code>{EXAMPLE}</code>
      </pre>
    </section>
  );
}
