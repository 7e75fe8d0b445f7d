#!/usr/bin/env node
'use strict'
/* Drives a live Zipkin collector with zipkin-js (zipkin, zipkin-transport-http) and reports what it sent.
   ENCODING v2json | v1json   (v2json)   ZIPKIN_HOST (127.0.0.1) ZIPKIN_PORT (9411) TRACES (50) RUN_ID PACE_MS (2)
   Two services: the second joins the span of the first, as B3 servers do. The counts are made where the library encodes.
   One JSON line at exit. */
const { Tracer, BatchRecorder, jsonEncoder, ExplicitContext, Instrumentation, Annotation, InetAddress, option } = require('zipkin')
const { HttpLogger } = require('zipkin-transport-http')
const E = process.env; const N = Number(E.TRACES || 50); const PACE = Number(E.PACE_MS || 2); const RUN = E.RUN_ID || 'run-zipkin-js-' + process.pid
const version = E.ENCODING === 'v1json' ? 'v1' : 'v2'; const encoder = jsonEncoder['JSON_' + version.toUpperCase()]
const C = { spans: 0, errors: 0, by_service: {}, by_name: {}, by_trace: {} }
const inc = (o, k) => { o[k] = (o[k] || 0) + 1 }
const counting = {
  encode (span) {
    const text = encoder.encode(span); const s = JSON.parse(text); const all = [...(s.annotations || []), ...(s.binaryAnnotations || [])]
    const bad = version === 'v1' ? all.some(a => a.key === 'error') : 'error' in (s.tags || {})
    C.spans++; if (bad) C.errors++; inc(C.by_name, s.name)
    inc(C.by_service, version === 'v1' ? (all.find(a => a.endpoint && a.key !== 'sa' && a.key !== 'ma') || { endpoint: {} }).endpoint.serviceName : s.localEndpoint.serviceName)
    const t = (C.by_trace[s.traceId.padStart(32, '0')] ||= { spans: 0, errors: 0 }); t.spans++; if (bad) t.errors++
    return text
  }
}
let posts = 0; let answers = 0
const logger = new HttpLogger({ endpoint: `http://${E.ZIPKIN_HOST || '127.0.0.1'}:${E.ZIPKIN_PORT || 9411}/api/${version}/spans`, jsonEncoder: counting, httpInterval: 200, fetchImplementation: (...a) => { posts++; return fetch(...a) } })
logger.on('success', () => answers++); logger.on('error', e => { answers++; console.error(e.message.slice(0, 300)) })
const ctxImpl = new ExplicitContext(); const recorder = new BatchRecorder({ logger })
const make = (name, wide) => new Tracer({ ctxImpl, recorder, localServiceName: name, traceId128Bit: wide, defaultTags: { 'run.id': RUN } })
const back = make('e2e-zipjs-back'); const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const receiving = new Instrumentation.HttpServer({ tracer: back, port: 9000, host: '10.0.0.9' })
const header = headers => name => name in headers ? new option.Some(headers[name]) : option.None
;(async () => {
  const started = Date.now() / 1000
  const fronts = [make('e2e-zipjs-front', false), make('e2e-zipjs-front', true)]
  for (let i = 0; i < N; i++) {
    const front = fronts[i % 2]; const status = i % 5 === 0 ? 500 : 200
    front.scoped(() => {
      const server = new Instrumentation.HttpServer({ tracer: front, port: 8080 }); const client = new Instrumentation.HttpClient({ tracer: front, remoteServiceName: 'e2e-zipjs-back' })
      const id = server.recordRequest('GET', 'http://front/item/' + i, header({})); front.recordBinary('note.utf8', 'grün-日本-🚀'); front.recordMessage('cache.miss')
      front.scoped(() => {
        const request = client.recordRequest({ headers: {} }, 'http://back/price/' + i, 'GET')
        const called = front.id
        back.scoped(() => { const joined = receiving.recordRequest('GET', 'http://back/price/' + i, header(request.headers)); receiving.recordResponse(joined, status) })
        client.recordResponse(called, status)
      })
      front.local('render', () => {})
      front.scoped(() => {
        front.setId(front.createChildId()); front.recordServiceName(front.localEndpoint.serviceName); front.recordAnnotation(new Annotation.ProducerStart()); front.recordRpc('publish')
        front.recordAnnotation(new Annotation.MessageAddr({ serviceName: 'kafka', host: new InetAddress('10.0.0.7'), port: 9092 })); front.recordAnnotation(new Annotation.ProducerStop())
      })
      front.setId(id); server.recordResponse(id, status)
    })
    await sleep(PACE)
  }
  logger.processQueue(logger.fetchImplementation)
  while (answers < posts) await sleep(10)
  console.log(JSON.stringify({ client: 'node-zipkin', version: require('zipkin/package.json').version, encoding: version + 'json', run_id: RUN, started, ended: Date.now() / 1000, traces: Object.keys(C.by_trace).length, ...C }))
})()
