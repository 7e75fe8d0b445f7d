#!/usr/bin/env node
'use strict'
/* Drives a live Jaeger collector with jaeger-client (Node) and reports what it sent.
   PROTOCOL http | udp   (http: Thrift binary over HTTP; udp: Thrift binary in datagrams)
   JAEGER_HOST (127.0.0.1) JAEGER_HTTP_PORT (14268) JAEGER_BINARY_PORT (6832) TRACES (50) RUN_ID PACE_MS (2)
   SAMPLING_PORT asks that port what to sample, and begins when it has been told; without it everything is sampled.
   The counts are made where the library hands finished spans to its reporter. One JSON line at exit. */
const { initTracer } = require('jaeger-client')
const E = process.env; const N = Number(E.TRACES || 50); const PACE = Number(E.PACE_MS || 2); const RUN = E.RUN_ID || 'run-jaeger-js-' + process.pid
const P = E.PROTOCOL || 'http'; const HOST = E.JAEGER_HOST || '127.0.0.1'; const SVC = 'e2e-jaeger-js'
const C = { spans: 0, errors: 0, by_service: {}, by_name: {}, by_trace: {} }
const inc = (o, k) => { o[k] = (o[k] || 0) + 1 }
const reporter = P === 'udp' ? { agentHost: HOST, agentPort: Number(E.JAEGER_BINARY_PORT || 6832) } : { collectorEndpoint: `http://${HOST}:${E.JAEGER_HTTP_PORT || 14268}/api/traces` }
// A sampler that has not been told anything yet keeps nothing.
const sampler = E.SAMPLING_PORT ? { type: 'remote', param: 0, hostPort: `${HOST}:${E.SAMPLING_PORT}`, refreshIntervalMs: 50 } : { type: 'const', param: 1 }
const logger = { info () {}, error: m => console.error(m) }
const tracer = initTracer({ serviceName: SVC, sampler, reporter: { ...reporter, flushIntervalMs: 200 } }, { tags: { 'run.id': RUN, 'deployment.environment': 'e2e' }, logger, traceId128bit: true })
const report = tracer._reporter.report.bind(tracer._reporter)
tracer._reporter.report = span => {
  const bad = span._tags.some(t => t.key === 'error' && t.value === true)
  C.spans++; if (bad) C.errors++; inc(C.by_service, SVC); inc(C.by_name, span.operationName)
  const t = (C.by_trace[span.context().traceIdStr.padStart(32, '0')] ||= { spans: 0, errors: 0 }); t.spans++; if (bad) t.errors++
  report(span)
}
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
;(async () => {
  const started = Date.now() / 1000
  const told = () => tracer._sampler._sampler.samplingRate
  for (let n = 0; E.SAMPLING_PORT && told() === 0 && n < 500; n++) await sleep(20)
  let prev
  for (let i = 0; i < N; i++) {
    const root = tracer.startSpan('GET /cart', { tags: { 'span.kind': 'server', 'http.status_code': i % 5 ? 200 : 500, 'note.utf8': 'grün-日本-🚀', ratio: 0.25, big: Buffer.from([0, 255, 1]) } })
    const child = tracer.startSpan('SELECT cart', { childOf: root, tags: { 'span.kind': 'client', 'db.system': 'postgresql', 'peer.service': 'db' } })
    child.log({ event: 'rows', n: i % 11 }); child.finish()
    if (prev) tracer.startSpan('follow up', { references: [new (require('opentracing').Reference)('follows_from', root.context()), new (require('opentracing').Reference)('follows_from', prev)] }).finish()
    if (i % 5 === 0) { const s = tracer.startSpan('charge', { childOf: root }); s.setTag('error', true); s.log({ event: 'error', message: 'card declined #' + i }); s.finish(); root.setTag('error', true) }
    prev = root.context(); root.finish()
    await sleep(PACE)
  }
  await new Promise(resolve => tracer.close(resolve))
  console.log(JSON.stringify({ client: 'node-jaeger', version: require('jaeger-client/package.json').version, protocol: P, rate: E.SAMPLING_PORT && told(), run_id: RUN, started, ended: Date.now() / 1000, traces: Object.keys(C.by_trace).length, ...C }))
})()
