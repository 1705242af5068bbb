"use strict";

// The page reads /status.json each second, and /history.json for what was before: once,
// and again for each step of the last hour. The daemon computes all numbers; the page draws
// them.

const POLL_MS = 1000;
const GAP_SECONDS = 3;

const byId = (id) => document.getElementById(id);
const samples = [];
let kept = 300;
let steps = [];
let keptSteps = 360;
let stepSeconds = 10;
let hourRead = 0;
let answered = 0;
let daemon = null;
