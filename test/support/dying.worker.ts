/** Replaces a worker: ends at its first request, as no worker should. */
declare const self: Worker;

self.addEventListener("message", () => process.exit(1));
self.postMessage("listening");
