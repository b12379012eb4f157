"""Makes the values in vectors.rs without a line of this crate: libsodium (`pip install pynacl`) and Python's own hmac and zlib.

    python3 vectors.py

Its output is pasted into vectors.rs once for a version of a form, and never changed again: what is stored must open for ever.
"""

import base64
import hashlib
import hmac
import json
import zlib

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as xchacha
from nacl.pwhash import argon2id

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def fixed(what, size=32):
    # Derived, so that no usable key stands here for anybody to copy.
    return hashlib.sha256(b"convox-seal test vectors: " + what.encode()).digest()[:size]


def hkdf(key, info, size):
    secret = hmac.new(b"convox console", key, "sha256").digest()
    return hmac.new(secret, info + b"\1", "sha256").digest()[:size]


def base62(data, digits):
    number, text = int.from_bytes(data, "big"), ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        text = DIGITS[digit] + text
    return text


def aad(key_id, parts):
    return b"\1" + key_id + b"".join(len(part).to_bytes(8, "big") + part for part in map(str.encode, parts))


def seal(key, key_id, nonce, parts, plain):
    return b"\1" + key_id + nonce + xchacha(plain, aad(key_id, parts), nonce, key)


def b64(data):
    return base64.b64encode(data).rstrip(b"=").decode()


def jwt(key, *parts):
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    message = b".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return (message + b"." + encode(hmac.new(key, message, "sha256").digest())).decode()


root = fixed("root key")
root_id, wrapping = hkdf(root, b"root key id v1", 8), hkdf(root, b"data key wrap v1", 32)
data_id, data_key = fixed("data key id", 8), fixed("data key")
api_key = "cxu_" + base62(fixed("api key"), 43)
api_key += base62(zlib.crc32(api_key.encode()).to_bytes(4, "big"), 6)
claims = {"user": "system-write", "role": "rw", "expiresAt": 2000000000}
ours = {"exp": 2000000000, "iat": 1900000000, "jti": "token-1", "iss": "main", "aud": "rack-1"}
salt = fixed("salt", 16)
hashed = argon2id.kdf(32, b"correct horse", salt, opslimit=2, memlimit=19 * 1024 * 1024)

for name, value in {
    "ROOT_ID": root_id.hex(),
    "WRAPPED": seal(wrapping, root_id, fixed("nonce 1", 24), ["convox data key", "org-1"], data_id + data_key).hex(),
    "SEALED": seal(
        data_key, data_id, fixed("nonce 2", 24), ["convox sealed", "org-1", "rack-1", "password"], "pässword".encode()
    ).hex(),
    "API_KEY": api_key,
    "LOOKUP": hmac.new(hkdf(root, b"api key lookup v1", 32), api_key.encode(), "sha256").hexdigest(),
    "PASSWORD": f"$argon2id$v=19$m=19456,t=2,p=1${b64(salt)}${b64(hashed)}",
    "TOKEN": jwt(fixed("signer"), {"alg": "HS256", "typ": "JWT", "kid": "kid-1"}, claims | ours),
    "ORIGINAL": jwt(fixed("signer"), {"alg": "HS256", "typ": "JWT"}, claims),
}.items():
    print(f'const {name}: &str = "{value}";')
