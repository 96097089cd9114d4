// Uploads a file with tus-js-client: node upload.mjs ADDRESS KEY FILE CHUNK STORE [STOP_AFTER]
// STORE remembers where uploads are. With STOP_AFTER bytes it aborts; started again, it goes on.
// Prints what happened as JSON.
import fs from 'node:fs'
import path from 'node:path'
import { FileUrlStorage, Upload } from 'tus-js-client'

const [address, key, file, chunk, store, stopAfter] = process.argv.slice(2)
const told = { stopped: false, resumed: false, firstOffset: null, dataset: null }

const upload = new Upload(fs.createReadStream(file), {
  endpoint: `${address}/v1/uploads`,
  headers: { Authorization: `Bearer ${key}` },
  chunkSize: Number(chunk),
  retryDelays: [0, 200, 500, 1000],
  uploadSize: fs.statSync(file).size,
  metadata: { filename: path.basename(file), filetype: 'application/zip' },
  urlStorage: new FileUrlStorage(store),
  fingerprint: async () => `tdmr-${file}`,
  onBeforeRequest(request) {
    const offset = request.getHeader('Upload-Offset')
    if (offset !== undefined && told.firstOffset === null) told.firstOffset = Number(offset)
  },
  onAfterResponse(_request, response) {
    told.dataset = response.getHeader('Tdmr-Dataset') ?? told.dataset
  },
  onChunkComplete(_size, accepted) {
    if (stopAfter !== undefined && accepted >= Number(stopAfter)) {
      told.stopped = true
      upload.abort().then(finish)
    }
  },
  onSuccess: finish,
  onError(error) {
    console.error(String(error))
    process.exit(1)
  },
})

function finish() {
  told.url = upload.url
  console.log(JSON.stringify(told))
  process.exit(0)
}

const previous = await upload.findPreviousUploads()
if (previous.length > 0) {
  told.resumed = true
  upload.resumeFromPreviousUpload(previous[0])
}
upload.start()
