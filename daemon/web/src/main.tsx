import "./guard";
import "./styles.css";
import { render } from "preact";
import { App } from "./app";
import { startRouter } from "./router";
import { startTheme } from "./state/prefs";
import { startSession } from "./state/session";

async function start(): Promise<void> {
  startTheme();
  await startSession();
  startRouter();
  render(<App />, document.getElementById("app") as HTMLElement);
}

void start();
