// The browser's own signs of the network and the page. Elsewhere: always online, and nothing happens.

import type { Device } from "./types.js";

/** The part of a window that is used; none of it exists in Node or in React Native. */
interface Page {
  addEventListener?: (name: string, call: () => void) => void;
  removeEventListener?: (name: string, call: () => void) => void;
}

export function browserDevice(): Device {
  const page = globalThis as Page;
  const shown = (globalThis as { document?: Document }).document;
  return {
    isOnline: () => (globalThis as { navigator?: { onLine?: boolean } }).navigator?.onLine !== false,
    listen(call) {
      if (typeof page.addEventListener !== "function") return () => {};
      const online = () => call("online");
      const offline = () => call("offline");
      const wake = () => {
        if (shown?.visibilityState !== "hidden") call("wake");
      };
      page.addEventListener("online", online);
      page.addEventListener("offline", offline);
      page.addEventListener("pageshow", wake);
      shown?.addEventListener?.("visibilitychange", wake);
      return () => {
        page.removeEventListener?.("online", online);
        page.removeEventListener?.("offline", offline);
        page.removeEventListener?.("pageshow", wake);
        shown?.removeEventListener?.("visibilitychange", wake);
      };
    },
  };
}
