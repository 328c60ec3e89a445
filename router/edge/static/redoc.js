import { init } from "[[bundle]]";

init("[[spec]]", { disableTelemetry: true, router: "hash" }, document.getElementById("redoc"));
