import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { signIn } from "./session";
import "./style.css";

const root = createRoot(document.getElementById("root") as HTMLElement);
signIn().then(
  (parley) =>
    root.render(
      <StrictMode>
        <App parley={parley} />
      </StrictMode>,
    ),
  (fault) =>
    root.render(
      <main className="alone">
        <h1>Nobody is signed in</h1>
        <p>{String(fault.message)}</p>
        <p>
          Open <a href="?user=alice">?user=alice</a> or <a href="?user=bob">?user=bob</a>.
        </p>
      </main>,
    ),
);
