"""Where webhooks must never go, where they may, and why."""

from __future__ import annotations

from typing import NamedTuple

PUBLIC_4, PUBLIC_6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


class Refused(NamedTuple):
    """A URL, or a name that resolves to `answers`, the code that it's refused with, and why."""

    url: str
    code: str
    why: str
    answers: tuple[str, ...] = ()


def literal(address: str, why: str) -> Refused:
    """An address as the URL's host."""
    host = f"[{address}]" if ":" in address else address
    return Refused(f"https://{host}/hook", "not_public", why)


def resolved(why: str, *answers: str) -> Refused:
    """A harmless name with these addresses."""
    return Refused("https://hooks.example.com/", "not_public", why, answers)


def wrong(url: str, why: str, code: str = "malformed_url") -> Refused:
    """A URL that is refused before anything is looked up; its name would be a public one."""
    return Refused(url, code, why, (PUBLIC_4,))


ADDRESSES = [
    ("127.0.0.1", "loopback"),
    ("127.1.2.3", "loopback is a whole /8"),
    ("127.255.255.254", "the end of loopback"),
    ("0.0.0.0", "this host: Linux connects to loopback"),
    ("0.1.2.3", "this network, 0.0.0.0/8"),
    ("10.0.0.1", "private"),
    ("10.255.255.255", "the end of 10/8"),
    ("172.16.0.1", "private"),
    ("172.31.255.254", "the end of 172.16/12"),
    ("192.168.1.1", "private: home routers"),
    ("100.64.0.1", "carrier-grade NAT"),
    ("100.100.100.200", "Alibaba's metadata service, in the carriers' range"),
    ("100.127.255.254", "the end of 100.64/10"),
    ("169.254.169.254", "the metadata service of AWS, Google, Azure"),
    ("169.254.170.2", "credentials of ECS tasks"),
    ("169.254.0.1", "link-local"),
    ("192.0.0.192", "Oracle's metadata service"),
    ("192.0.0.1", "protocol assignments"),
    ("192.0.0.170", "NAT64 discovery"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.7", "documentation"),
    ("203.0.113.9", "documentation"),
    ("192.88.99.1", "6to4 relays, withdrawn"),
    ("198.18.0.1", "benchmarks"),
    ("198.19.255.254", "the end of 198.18/15"),
    ("224.0.0.1", "multicast: every host of the network"),
    ("239.255.255.250", "multicast: UPnP"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified: Linux connects to loopback"),
    ("::1", "loopback"),
    ("::7f00:1", "IPv4-compatible 127.0.0.1"),
    ("::ffff:127.0.0.1", "IPv4-mapped loopback"),
    ("::ffff:7f00:1", "the same in hexadecimal"),
    ("0:0:0:0:0:ffff:7f00:1", "the same in full"),
    ("::ffff:169.254.169.254", "IPv4-mapped metadata"),
    ("::ffff:10.0.0.1", "IPv4-mapped private"),
    ("::ffff:8.8.8.8", "IPv4-mapped, even of a public one: write that itself"),
    ("::ffff:0:127.0.0.1", "IPv4-translated (SIIT)"),
    ("64:ff9b::127.0.0.1", "NAT64 of loopback"),
    ("64:ff9b::a9fe:a9fe", "NAT64 of metadata"),
    ("64:ff9b::8.8.8.8", "NAT64, even of a public one: the gateway decides where it goes"),
    ("64:ff9b:1::a00:1", "NAT64 of a network's own prefix"),
    ("2002:7f00:1::", "6to4 of 127.0.0.1"),
    ("2002:a00:1::1", "6to4 of 10.0.0.1"),
    ("2002:a9fe:a9fe::", "6to4 of metadata"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
    ("2001:0:7f00:1::", "Teredo by a server on loopback"),
    ("2001:10::1", "ORCHID"),
    ("2001:20::1", "ORCHIDv2"),
    ("2001:2::1", "benchmarks"),
    ("2001:db8::1", "documentation"),
    ("3fff::1", "documentation, the newer"),
    ("2606:4700::5efe:7f00:1", "ISATAP of 127.0.0.1 in a public prefix"),
    ("2606:4700::200:5efe:a00:1", "ISATAP of 10.0.0.1 in a public prefix"),
    ("fe80::1", "link-local"),
    ("febf::1", "the end of link-local"),
    ("fe80::1%eth0", "link-local with its scope"),
    ("2606:4700::1111%1", "a public one with a scope: which network is meant?"),
    ("fec0::1", "site-local, deprecated"),
    ("fc00::1", "unique local"),
    ("fd00:ec2::254", "metadata of AWS over IPv6"),
    ("fd20:ce::254", "metadata of Google over IPv6"),
    ("ff02::1", "multicast: every host of the link"),
    ("ff0e::1", "multicast of global scope"),
    ("100::1", "discard only"),
    ("5f00::1", "segment routing"),
    ("4000::1", "not given out to anybody"),
]

URLS = [
    wrong("http://hooks.example.com/", "not encrypted", "not_https"),
    wrong("HTTP://hooks.example.com/", "nor in capitals", "not_https"),
    wrong("ftp://hooks.example.com/", "another protocol", "not_https"),
    wrong("file:///etc/passwd", "a file", "not_https"),
    wrong("gopher://127.0.0.1:6379/_FLUSHALL", "any bytes to Redis", "not_https"),
    wrong("//hooks.example.com/", "no scheme", "not_https"),
    wrong("https:hooks.example.com", "no slashes: some readers add them", "not_https"),
    wrong("https:/\\127.0.0.1/", "a backslash that browsers take for a slash"),
    wrong("https://", "no host", "not_https"),
    wrong("https:///hook", "an empty host"),
    wrong("https://:443/", "an empty host with a port"),
    wrong("https://user@hooks.example.com/", "a user name", "userinfo"),
    wrong("https://user:pass@hooks.example.com/", "a password", "userinfo"),
    wrong("https://hooks.example.com@127.0.0.1/", "a name that is a user's", "userinfo"),
    wrong("https://127.0.0.1@hooks.example.com/", "an address that is a user's", "userinfo"),
    wrong("https://hooks.example.com:443@127.0.0.1/", "and with a port", "userinfo"),
    wrong("https://hooks.example.com\\@127.0.0.1/", "two readers, two hosts"),
    wrong("https://hooks.example.com\\.127.0.0.1/", "a backslash in the name"),
    wrong("https://hooks.example.com#@127.0.0.1/", "a fragment that hides the host"),
    wrong("https://hooks.example.com/#part", "a fragment"),
    wrong("https://hooks.example.com /", "a blank"),
    wrong(" https://hooks.example.com/", "a blank before it"),
    wrong("https://hooks.example.com/\r\nX-Evil: 1", "a header of the caller's own"),
    wrong("https://hooks.example.com/\x00", "a NUL"),
    wrong("https://hooks.example.com\t/", "a tab, which browsers drop"),
    wrong("https://127.0.0.1.nip.io:22/", "a port that isn't HTTP's", "port"),
    wrong("https://hooks.example.com:80/", "not a port of https", "port"),
    wrong("https://hooks.example.com:0/", "port 0", "port"),
    wrong("https://hooks.example.com:65979/", "443 after an overflow of 16 bits", "port"),
    wrong("https://hooks.example.com:+443/", "a port with a sign"),
    wrong("https://hooks.example.com:443:443/", "two ports"),
    wrong("https://hooks.example.com./", "a trailing dot: another name for the certificate"),
    wrong("https://127.0.0.1./", "and behind an address"),
    wrong("https://hooks..example.com/", "an empty label"),
    wrong("https://-hooks.example.com/", "a label that begins with a dash"),
    wrong("https://" + "a" * 64 + ".example.com/", "a label that is too long"),
    wrong("https://" + "abcdefghi." * 26 + "com/", "a name that is too long"),
    wrong("https://hooks.example.com/" + "a" * 2000, "a URL that is too long"),
    wrong("https://hooks.example%2ecom/", "an encoded dot"),
    wrong("https://%6c%6f%63%61%6c%68%6f%73%74/", "an encoded localhost"),
    wrong("https://b\u00fccher.example/", "letters that readers encode differently"),
    wrong(
        "https://\u2460\u2461\u2466.\u2460.\u2460.\u2460/", "digits in circles: 127.1.1.1 to some"
    ),
    wrong("https://127\u30020\u30020\u30021/", "ideographic full stops"),
    wrong("https://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54/", "wide letters"),
    wrong("https://2130706433/", "127.0.0.1 as one number"),
    wrong("https://0x7f000001/", "as one hexadecimal number"),
    wrong("https://0x7f.1/", "in hexadecimal and short"),
    wrong("https://0x7f.0x0.0x0.0x1/", "each part in hexadecimal"),
    wrong("https://017700000001/", "as one octal number"),
    wrong("https://0177.0.0.1/", "an octal part"),
    wrong("https://127.0.0.01/", "a leading zero: octal or not?"),
    wrong("https://127.1/", "a short form"),
    wrong("https://127.0.1/", "another"),
    wrong("https://127.0.0.0x1/", "the last part in hexadecimal"),
    wrong("https://127.0.0.1.1/", "five parts"),
    wrong("https://256.256.256.256/", "parts beyond 255"),
    wrong("https://4294967296/", "more than 32 bits: 0.0.0.0 to some"),
    wrong("https://hooks.example.123/", "a name that ends in a number"),
    wrong("https://[127.0.0.1]/", "IPv4 in brackets"),
    wrong("https://[::1/", "half a bracket"),
    wrong("https://[::1]evil.example.com/", "a name behind brackets"),
    wrong("https://[v1.fe80::1]/", "an address of the future"),
    wrong("https://[]/", "empty brackets"),
    wrong("https://::1/", "IPv6 without brackets"),
    wrong("https://localhost/", "this machine's name", "private_name"),
    wrong("https://LOCALHOST/", "in capitals", "private_name"),
    wrong("https://foo.localhost/", "names below it", "private_name"),
    wrong("https://localhost.localdomain/", "its old longer form", "private_name"),
    wrong("https://metadata/", "a single word: a search domain would be added", "private_name"),
    wrong("https://redis/", "a neighbour in a compose file", "private_name"),
    wrong("https://metadata.google.internal/", "Google's metadata service", "private_name"),
    wrong("https://instance-data.ec2.internal/", "Amazon's", "private_name"),
    wrong("https://kubernetes.default.svc.cluster.local/", "Kubernetes's API", "private_name"),
    wrong("https://printer.local/", "multicast DNS", "private_name"),
    wrong("https://router.home.arpa/", "a home's own names", "private_name"),
    wrong("https://intranet.corp/", "a company's own names", "private_name"),
    wrong("https://nas.lan/", "a router's own names", "private_name"),
    wrong("https://expyuzz4wqqyqhjn.onion/", "another network", "private_name"),
]

ANSWERS = [
    resolved("loopback", "127.0.0.1"),
    resolved("loopback over IPv6", "::1"),
    resolved("private", "10.1.2.3"),
    resolved("metadata", "169.254.169.254"),
    resolved("IPv4-mapped loopback", "::ffff:127.0.0.1"),
    resolved("NAT64 of loopback", "64:ff9b::7f00:1"),
    resolved("6to4 of loopback", "2002:7f00:1::"),
    resolved("link-local with its scope", "fe80::1%eth0"),
    resolved("link-local with the scope's number", "fe80::1%2"),
    resolved("this host", "0.0.0.0"),
    resolved("multicast", "224.0.0.251"),
    resolved("a public one first, then loopback", PUBLIC_4, "127.0.0.1"),
    resolved("loopback first, then a public one", "127.0.0.1", PUBLIC_4),
    resolved("public IPv4, local IPv6", PUBLIC_4, "::1"),
    resolved("public IPv6, private IPv4", PUBLIC_6, "192.168.0.1"),
    resolved("a private one among many", *[f"93.184.215.{n}" for n in range(20)], "10.0.0.1"),
    resolved("what isn't an address at all", "localhost"),
    resolved("an octal one", "0177.0.0.1"),
    Refused("https://hooks.example.com/", "unresolvable", "no such name", ()),
    Refused(
        "https://hooks.example.com/",
        "unresolvable",
        "more addresses than a name has",
        tuple(f"93.184.215.{n}" for n in range(33)),
    ),
]

REFUSED = [*(literal(address, why) for address, why in ADDRESSES), *URLS, *ANSWERS]

# (URL, answers, what is connected to, Host header, path)
ALLOWED = [
    ("https://93.184.215.14/hook", (), PUBLIC_4, PUBLIC_4, "/hook"),
    ("https://8.8.8.8", (), "8.8.8.8", "8.8.8.8", "/"),
    ("https://[2001:4860:4860::8888]/", (), "2001:4860:4860::8888", "[2001:4860:4860::8888]", "/"),
    ("https://172.32.0.1/", (), "172.32.0.1", "172.32.0.1", "/"),
    ("https://100.63.255.255/", (), "100.63.255.255", "100.63.255.255", "/"),
    ("https://100.128.0.1/", (), "100.128.0.1", "100.128.0.1", "/"),
    ("https://11.0.0.1/", (), "11.0.0.1", "11.0.0.1", "/"),
    ("https://223.255.255.254/", (), "223.255.255.254", "223.255.255.254", "/"),
    ("https://hooks.example.com/a?b=c&d", (PUBLIC_4,), PUBLIC_4, "hooks.example.com", "/a?b=c&d"),
    ("https://hooks.example.com?b=c", (PUBLIC_4,), PUBLIC_4, "hooks.example.com", "/?b=c"),
    ("https://hooks.example.com//x", (PUBLIC_4,), PUBLIC_4, "hooks.example.com", "//x"),
    (
        "https://hooks.example.com/a@b:1/%20",
        (PUBLIC_4,),
        PUBLIC_4,
        "hooks.example.com",
        "/a@b:1/%20",
    ),
    ("https://HOOKS.Example.COM:443/", (PUBLIC_4,), PUBLIC_4, "hooks.example.com", "/"),
    ("https://hooks.example.com:8443/", (PUBLIC_4,), PUBLIC_4, "hooks.example.com:8443", "/"),
    ("https://hooks.example.com/", (PUBLIC_6, PUBLIC_4), PUBLIC_6, "hooks.example.com", "/"),
    ("https://xn--bcher-kva.example/", (PUBLIC_6,), PUBLIC_6, "xn--bcher-kva.example", "/"),
    ("https://a_b.1a.example.io/", (PUBLIC_4,), PUBLIC_4, "a_b.1a.example.io", "/"),
    ("https://internal.example.com/", (PUBLIC_4,), PUBLIC_4, "internal.example.com", "/"),
]
