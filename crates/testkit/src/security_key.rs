//! A security key in software: what a browser gets from one when it is added, and what the original v2 client gets from one by U2F.
//! Written against the U2F and WebAuthn specifications and the v2 client's source, without the library that the Console judges by.

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Present: somebody touched it.
const TOUCHED: u8 = 0x01;
/// The data of a credential follow.
const ATTESTED: u8 = 0x40;

/// One credential on one key.
pub struct SecurityKey {
    pair: EcdsaKeyPair,
    id: Vec<u8>,
    counter: u32,
}

impl SecurityKey {
    /// A new one, which nobody knows.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).context("a key pair")?;
        let id = digest(&SHA256, pair.public_key().as_ref()).as_ref().to_vec();
        Ok(Self { pair, id, counter: 0 })
    }

    /// Lets the counter begin again: a copy of the key that was made earlier.
    pub fn forget_counter(&mut self) {
        self.counter = 0;
    }

    /// What a browser at `origin` gives for these options of `navigator.credentials.create`.
    ///
    /// # Errors
    /// When the options are none.
    pub fn added(&mut self, options: &Value, origin: &str) -> Result<String> {
        let public = &options["publicKey"];
        let client =
            json!({ "type": "webauthn.create", "challenge": public["challenge"], "origin": origin, "crossOrigin": false }).to_string();
        let mut data = self.data(public["rp"]["id"].as_str().context("a name")?, TOUCHED | ATTESTED);
        // The kind of authenticator: none that says so.
        data.extend([0; 16]);
        data.extend((self.id.len() as u16).to_be_bytes());
        data.extend(&self.id);
        // COSE: an elliptic curve key for ES256 on P-256, in CBOR.
        let point = self.pair.public_key().as_ref();
        ensure!(point.len() == 65 && point.first() == Some(&4), "an uncompressed point");
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 32]);
        data.extend(point.get(1..33).unwrap_or_default());
        data.extend([0x22, 0x58, 32]);
        data.extend(point.get(33..).unwrap_or_default());
        // {"fmt": "none", "attStmt": {}, "authData": data}
        let mut object = vec![0xa3];
        object.extend(b"\x63fmt\x64none\x67attStmt\xa0\x68authData\x58");
        object.push(u8::try_from(data.len()).context("short data")?);
        object.extend(&data);
        let id = URL_SAFE_NO_PAD.encode(&self.id);
        let response = json!({ "attestationObject": URL_SAFE_NO_PAD.encode(object), "clientDataJSON": URL_SAFE_NO_PAD.encode(client) });
        Ok(json!({ "id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": {} }).to_string())
    }

    /// What the v2 client posts for the challenge that it got: fields, order and encodings as its structs have them. It asks each credential
    /// in turn, so one that is not ours is no answer.
    ///
    /// # Errors
    /// `no valid tokens found`, as it says when no credential is this one's; or when the challenge is none.
    pub fn answer_as_v2(&mut self, challenge: &[u8]) -> Result<String> {
        let challenge: Value = serde_json::from_slice(challenge).context("the challenge is JSON")?;
        let public = &challenge["publicKey"];
        let standard = |value: &Value| Ok::<_, anyhow::Error>(STANDARD.decode(value.as_str().context("text")?)?);
        let ours = public["allowCredentials"]
            .as_array()
            .context("credentials")?
            .iter()
            .any(|one| standard(&one["id"]).is_ok_and(|id| id == self.id));
        ensure!(ours, "no valid tokens found");
        let name = public["rpId"].as_str().context("a name")?;
        let bytes = standard(&public["challenge"])?;
        let client = format!(r#"{{"type":"webauthn.get","challenge":"{}","origin":"https://{name}"}}"#, URL_SAFE_NO_PAD.encode(bytes));
        self.signed(name, &client, r#"{"appid":true}"#)
    }

    /// What a page at `origin` hands back for the challenge that the v3 client put into its address.
    ///
    /// # Errors
    /// When the challenge is none.
    pub fn answer_as_browser(&mut self, challenge: &[u8], origin: &str) -> Result<String> {
        let challenge: Value = serde_json::from_slice(challenge).context("the challenge is JSON")?;
        let public = &challenge["publicKey"];
        let bytes = STANDARD.decode(public["challenge"].as_str().context("text")?)?;
        let client = json!({ "type": "webauthn.get", "challenge": URL_SAFE_NO_PAD.encode(bytes), "origin": origin, "crossOrigin": false });
        self.signed(public["rpId"].as_str().context("a name")?, &client.to_string(), "{}")
    }

    fn signed(&mut self, name: &str, client: &str, extensions: &str) -> Result<String> {
        let data = self.data(name, TOUCHED);
        let mut signed = data.clone();
        signed.extend(digest(&SHA256, client.as_bytes()).as_ref());
        let signature = self.pair.sign(&SystemRandom::new(), &signed).context("a signature")?;
        let id = URL_SAFE_NO_PAD.encode(&self.id);
        Ok(format!(
            r#"{{"id":"{id}","rawId":"{id}","type":"public-key","clientExtensionResults":{extensions},"response":{{"authenticatorData":"{}","clientDataJSON":"{}","signature":"{}","userHandle":""}}}}"#,
            URL_SAFE_NO_PAD.encode(data),
            URL_SAFE_NO_PAD.encode(client),
            URL_SAFE_NO_PAD.encode(signature.as_ref()),
        ))
    }

    /// Whom it is for, what is so, and a counter that goes up.
    fn data(&mut self, name: &str, flags: u8) -> Vec<u8> {
        self.counter += 1;
        let mut data = digest(&SHA256, name.as_bytes()).as_ref().to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        data
    }
}
