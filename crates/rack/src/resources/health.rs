//! Whether a resource's server answers as one of its kind does.

use std::net::Ipv4Addr;
use std::time::Duration;

use convox_seal::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Kind;

const PATIENCE: Duration = Duration::from_secs(5);

/// Who may ask a Redis server of ours whether it answers, and do nothing else there: no password is told to whoever listens.
pub(super) const ASKER: &str = "convox-check";

/// The error says what was seen. With a password if it has to be told for an answer.
pub(crate) async fn check(kind: Kind, port: u16, password: Option<&Secret>) -> Result<(), String> {
    let asked = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| error.to_string())?;
        match kind {
            Kind::Postgres => postgres(&mut stream).await,
            Kind::Redis => redis(&mut stream, password).await,
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

/// A server that takes logins asks for the password (`R`); one that starts or recovers says so instead (`E`).
async fn postgres(stream: &mut TcpStream) -> Result<(), String> {
    let words = b"user\0app\0database\0app\0\0";
    let mut hello = (8 + words.len() as u32).to_be_bytes().to_vec();
    hello.extend(196_608_u32.to_be_bytes());
    hello.extend(words);
    stream.write_all(&hello).await.map_err(|error| error.to_string())?;
    let mut reply = vec![0; 512];
    let count = stream.read(&mut reply).await.map_err(|error| error.to_string())?;
    match reply.get(..count) {
        // 0: whoever comes is let in.
        Some([b'R', _, _, _, _, 0, 0, 0, 0, ..]) => {
            Err("it asks for no password: anybody on this machine may do anything with it".to_owned())
        }
        Some([b'R', ..]) => Ok(()),
        Some([b'E', _, _, _, _, fields @ ..]) => {
            let message = fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"M"));
            Err(message.map_or_else(|| "an error without words".to_owned(), |text| String::from_utf8_lossy(text).into_owned()))
        }
        _ => Err("an answer that is not PostgreSQL's".to_owned()),
    }
}

async fn redis(stream: &mut TcpStream, password: Option<&Secret>) -> Result<(), String> {
    let hello = password.map_or(format!("AUTH {ASKER} -\r\nPING\r\n"), |password| format!("AUTH {}\r\nPING\r\n", password.expose()));
    stream.write_all(hello.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut reply = Vec::new();
    // Two lines, and nothing follows.
    while reply.split(|byte| *byte == b'\n').count() < 3 {
        if reply.len() > 1024 || stream.read_buf(&mut reply).await.map_err(|error| error.to_string())? == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&reply);
    // One that an earlier Rack started, or that knows no such user, has answered as its kind does.
    let is_redis = password.is_none()
        && ["-WRONGPASS", "-ERR wrong number of arguments for 'auth'", "-NOAUTH"].iter().any(|word| text.starts_with(word));
    if text.contains("+PONG") || is_redis {
        Ok(())
    } else {
        Err(text.lines().last().unwrap_or("no answer").trim_start_matches('-').to_owned())
    }
}
