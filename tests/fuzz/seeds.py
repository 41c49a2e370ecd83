"""Good inputs for each harness, from which the fuzzers start.

What is signed stands in `samples`; nobody has kept the key, so nothing else can be signed by it.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Final

from scamp.discovery import Announcement, AuthorizedServices, parse_announcement
from scamp.keys import fingerprint

_SAMPLES: Final = Path(__file__).with_name("samples")

# -- signed -----------------------------------------------------------------------------

RECORDS: Final = tuple(path.read_bytes() for path in sorted(_SAMPLES.glob("*.record")))
ANNOUNCEMENTS: Final[tuple[Announcement, ...]] = tuple(map(parse_announcement, RECORDS))
TICKETS: Final = tuple(path.read_text() for path in sorted(_SAMPLES.glob("*.ticket")))
TIME: Final = 1_700_000_100.0
"""When all tickets are valid."""
PUBLIC_KEY: Final = (_SAMPLES / "public.pem").read_bytes()
CERTIFICATE: Final = RECORDS[0].split(b"\n\n")[1]
FINGERPRINT: Final = fingerprint(CERTIFICATE)

# -- the wire ---------------------------------------------------------------------------

HEADERS: Final = (
    b'{"type":"request","request_id":7,"action":"A.b","version":1,"envelope":"json","ticket":null}',
    b'{"type":"request","request_id":"x7","action":"A.b","version":"2","client_id":"12","x":[1]}\n',
    b'{"type":"reply","request_id":7}',
    b'{"type":"reply","request_id":7,"error":"no","error_code":404,"error_data":{"dispatch_failure":true}}',
    b'{"type":"subscribe","request_id":1}',
    b'{"type":"subscribe_done","request_id":1}',
    b'{"type":"event"}',
    b'{"type":"notify","heartbeat":15}',
    b'{"type":"other","request_id":null,"traceparent":"00-1-2-3","identifying_token":"t"}',
)


def _packet(kind: bytes, msgno: int, body: bytes = b"") -> bytes:
    return b"%b %d %d\r\n%bEND\r\n" % (kind, msgno, len(body), body)


_REQUEST: Final = _packet(b"HEADER", 0, HEADERS[0])
_REPLY: Final = _packet(b"HEADER", 1, HEADERS[2])

PACKETS: Final = (
    _REQUEST + _packet(b"DATA", 0, b"{}") + _packet(b"EOF", 0),
    _REQUEST + _REPLY + _packet(b"DATA", 1, b"x" * 99) + _packet(b"DATA", 0) + _packet(b"EOF", 1),
    _REQUEST + _packet(b"DATA", 0, b"[1") + _packet(b"TXERR", 0, b"given up"),
    _packet(b"ACK", 1, b"100") + _packet(b"ACK", 2, b"1") + _packet(b"ACK", 2, b"200"),
    _packet(b"PING", 3) + _packet(b"PONG", 4) + _packet(b"ACK", 0, b"0"),
    b"DATA 0 70000\r\n" + b"y" * 100,
)

CONVERSATIONS: Final = tuple(bytes([5 * n & 15]) + one for n, one in enumerate(PACKETS))
"""The first byte says what is under way."""

SUBSCRIPTIONS: Final = (
    b'["announce","stock"]',
    b"null",
    b'[{"code":"announce","key":"","value":{"a":[1,2.5,null,true]}},{"code":"c","key":"k"}]',
    b'[{"code":"stock","key":"7","value":null},{"code":"stock","key":"8","value":"\\ud800"}]',
)

# -- announcements ----------------------------------------------------------------------

ANNOUNCED_JSON: Final = (
    *(record.split(b"\n\n")[0] for record in RECORDS),
    b'[3,"a:AAAAAAAAAAAAAAAAAAAAAAAA","main",1,5000,"beepish+tls://[::1]:30100",["json",{}],null,'
    b"1700000000123]",
    b'[3,"a","main","1.5","2500","scamp+tls://h:1",["json",{"vmaj":4,"acname":[[2,"x"],"y"],'
    b'"acns":[[3,"A.B"]],"acsec":[[3,"web"]],"acenv":[[3,"json,x"]],"acver":[1,2,3],'
    b'"acflag":[[2,""],"read,t5"],"accompat":[1,1,2]}],[["N",["a"],["b","read",2],["c",null,"3"]]],'
    b"1.5]",
    b'{"vmaj":4,"vmin":0,"ident":"a","uri":"beepish+tls://10.0.0.1:1","wgt":1,"intvl":5000,"ts":1.0,'
    b'"sector":"main","env":["json"],"acname":["x"],"acns":["A"],"acsec":["main"],"acenv":["json"]}',
)

RUNS: Final = (
    b'["a","b"]',
    b'[[3,"a"],"b",[2,1]]',
    b'[[100000,""]]',
    b"[]",
    b"[[0,[1]],{}]",
)

DATAGRAMS: Final = (
    *(zlib.compress(record, 9) for record in RECORDS[:2]),
    b"R" + zlib.compress(RECORDS[0]),
    b"D" + RECORDS[1],
    RECORDS[2],
    zlib.compress(bytes(3_000_000), 9),
)

STEPS: Final = (
    bytes(range(12)),
    bytes([2, 3, 4, 5, 255, 3, 4, 255, 4, 0, 255, 1, 0]),
    bytes([3, 160, 170, 190, 255, 129, 4, 100, 255, 230, 240, 3]),
    bytes([0, 200, 1, 220, 2, 180, 3, 255, 255, 0]),
)

# -- files ------------------------------------------------------------------------------

JUNK: Final = (b"\n%%%\n", b"%%%\n", b"\n%%", b"\n\n", b"[3", b"\n", b"\x00" * 20, b"]" * 100)

CACHE_FILES: Final = (
    b"".join(b"\n%%%\n" + record for record in RECORDS),
    b"%%%\n" + RECORDS[0] + b"\n%%%\n" + RECORDS[1] + b"\xff%%%\n" + RECORDS[1],
    b"ignored\n%%%\na\n%%%\nb\n%%%\n\n\n%%%\nc\n%%",
    b"\n%%%\na\n%%%\nb\xff\n%%%\nb\n%%%\na\n%%%\nb\xff\n%%%\nb",
)

AUTHORIZED_FILES: Final = (
    b"# who may offer what\n%b main:ALL, web:Product.Sku\n\n" % FINGERPRINT.encode(),
    b"%b Product, Cart.add # comment\nnonsense\n" % FINGERPRINT.lower().encode(),
    b"%b\n%b web:ALL,:,ALL,a:b:c\xff\n" % (FINGERPRINT.encode(), FINGERPRINT.encode()),
)
AUTHORIZED: Final = AuthorizedServices.parse(b"%b Product, web:ALL" % FINGERPRINT.encode())

CONFIGURATIONS: Final = (
    b"discovery.cache_path = /tmp/x # here\ndiscovery.cache_max_age = 60\nbus.address = if:eth0\n",
    b"beepish.first_port = 30100\nbeepish.last_port = 30399\nbeepish.bind_tries = 20\n",
    b"service.address = 10.0.0.1, ::1\ndiscovery.address = if:lo\ndiscovery.port = 5555\n",
    b"rpc.timeout = 7.5\nflow.max_inflight = 65536\nbeepish.client_timeout = 90\n"
    b"beepish.server_timeout = 120\nshop.key = /k\nshop.soa_cert = /c\nrpc.timeout = 1\n",
    b"bus.authorized_services = /a\nservice.running_service_file_dir_path = /r\nbus.address = ::1",
)

KEY_FILES: Final = (PUBLIC_KEY, CERTIFICATE, RECORDS[0])

SPECS: Final = (
    b'name = "shop"\naddress = "10.0.0.1:30100"\nactions = ["A.b", "web:A.c~2=read,t30"]\n',
    b'{"name":"shop","address":"[::1]:1","sector":"web","envelopes":["json","x"],"weight":2.5,'
    b'"interval":5,"identity":"a:b","actions":[{"name":"A.b","version":2,"flags":["read"],'
    b'"sector":"x","envelopes":["json"]},"A.d"]}',
    b'address = "h:1"\nweight = 0\n[[actions]]\nname = "A.b"\nflags = "noauth"\nversion = 3\n',
)

AUTHZ_TABLES: Final = (
    b'{"product.sku.fetch":[1,"2"],"Cart.Add":[],"cart.add":[30],"_NAMES":[null,"one","two"]}',
    b'{"_NAMES":[],"a":[0]}',
    b"{}",
)
