"""Runs the cases of the Autobahn WebSocket suite against a server, on Python 3.

The suite and its engine are Python 2 programs in which a payload is a `str`. Converted by lib2to3 they run here, once
every payload is translated at the border of the engine: a case's `str` is the bytes of its latin-1 form.

usage: cases.py ws://127.0.0.1:PORT/path REPORT.json [GROUP...]      a group is the beginning of a case's number, as `6.4.`
Exits with 1 when a case failed, and with 2 when there was none.
"""

import binascii
import collections
import json
import sys
import time

import txaio

txaio.use_twisted()

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from autobahn.websocket import utf8validator
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet import defer, reactor

AT_ONCE = 4
CASE_WITHIN = 30  # seconds
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")


def to_bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else text


def to_text(data):
    return data.decode("latin-1") if isinstance(data, (bytes, bytearray)) else data


def translate_the_engine():
    """What the engine's own modules do with payloads, where cases call them directly, some while they are imported."""
    validate = utf8validator.Utf8Validator.validate
    utf8validator.Utf8Validator.validate = lambda self, data: validate(self, to_bytes(data))
    hexlify = binascii.b2a_hex
    binascii.b2a_hex = lambda data, *more: hexlify(to_bytes(data), *more).decode()


translate_the_engine()

import autobahntestsuite.case as suite
from autobahntestsuite.case.case import Case

Case.compare = lambda self, found, expected: found == expected


class Runner(WebSocketClientProtocol):
    """The connection of one case: it hands events to the case, and does what the case asks."""

    def connectionMade(self):
        self.createWirelog, self.wirelog = False, []
        self.rxFrameStats, self.txFrameStats = {}, {}
        self.connectionWasOpen, self.runCase = False, None
        super().connectionMade()

    def enableWirelog(self, enable):
        pass

    def onConnect(self, response):
        pass

    def onOpen(self):
        self.connectionWasOpen = True
        self.runCase = self.factory.case(self)
        try:
            self.runCase.onOpen()
        except Exception as error:  # the case itself is broken: that is a result, too
            self.factory.error = repr(error)[:160]
            self.failConnection()

    def onMessage(self, payload, is_binary):
        if self.runCase:
            self.runCase.onMessage(to_text(payload), is_binary)

    def onPing(self, payload):
        if self.runCase:
            self.runCase.onPing(to_text(payload) if payload else "")
        if self.state == WebSocketProtocol.STATE_OPEN:
            self.sendPong(payload)

    def onPong(self, payload):
        if self.runCase:
            self.runCase.onPong(to_text(payload) if payload else "")

    def onClose(self, was_clean, code, reason):
        if self.runCase:
            self.runCase.onClose(was_clean, code, reason)

    def connectionLost(self, reason):
        super().connectionLost(reason)
        if self.runCase:
            self.runCase.onConnectionLost(self.failedByMe)
        self.factory.finish(self)

    def sendFrame(self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        payload = to_bytes(payload)
        if payload_len:  # repeated to that length; the engine's own division makes a fraction of it
            payload, payload_len = (payload * (payload_len // len(payload) + 1))[:payload_len], None
        super().sendFrame(opcode, payload, fin, rsv, to_bytes(mask) if mask else mask, payload_len, chopsize, sync)

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False, doNotCompress=False):
        super().sendMessage(to_bytes(payload), isBinary, fragmentSize, sync, doNotCompress)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(to_bytes(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, to_bytes(reasonUtf8), isReply)

    def later(self, delay, action):
        reactor.callLater(delay, lambda: self.state != WebSocketProtocol.STATE_CLOSED and action())

    def continueLater(self, delay, action, tag=None):
        self.later(delay, action)

    def killAfter(self, delay):
        self.later(delay, self.failConnection)

    def closeAfter(self, delay):
        self.later(delay, self.sendClose)


class CaseFactory(WebSocketClientFactory):
    protocol = Runner
    noisy = False
    error = None

    def finish(self, runner):
        if not self.done.called:
            self.done.callback(runner)

    def clientConnectionFailed(self, connector, reason):
        self.finish(None)


def number(case):
    return case.__name__.replace("Case", "").replace("_", ".")


@defer.inlineCallbacks
def run_case(url, case, results):
    factory = CaseFactory(url)
    factory.case, factory.done = case, defer.Deferred()
    factory.setProtocolOptions(failByDrop=False, utf8validateIncoming=False)
    begun = time.monotonic()
    connectWS(factory)
    reactor.callLater(CASE_WITHIN, factory.finish, None)
    runner = yield factory.done
    run = runner.runCase if runner is not None else None
    results[number(case)] = {
        "behavior": run.behavior if run else "NO CONNECTION",
        "close": run.behaviorClose if run else None,
        "error": factory.error,
        "milliseconds": round((time.monotonic() - begun) * 1000),
    }


@defer.inlineCallbacks
def run_all(url, cases, results):
    room = defer.DeferredSemaphore(AT_ONCE)
    yield defer.DeferredList([room.run(run_case, url, case, results) for case in cases])
    reactor.stop()


def main():
    url, report, groups = sys.argv[1], sys.argv[2], tuple(sys.argv[3:])
    cases = [case for case in suite.Cases if not groups or number(case).startswith(groups)]
    results = {}
    reactor.callWhenRunning(run_all, url, cases, results)
    reactor.run()

    def failed(result):
        return result["behavior"] not in PASSED or result["close"] not in PASSED

    counts = collections.Counter(result["behavior"] for result in results.values())
    faults = [name for name, result in results.items() if failed(result)]
    named = sorted(name for name, result in results.items() if result["behavior"] != "OK" or result["close"] != "OK")
    for name in named:
        print(name, json.dumps(results[name]))
    print(f"{len(results)} cases:", ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    with open(report, "w", encoding="utf-8") as file:
        json.dump({"url": url, "counts": counts, "failed": faults, "cases": results}, file, indent=1)
    if not results:
        sys.exit(2)
    print(f"{len(faults)} failed")
    sys.exit(1 if faults else 0)


main()
