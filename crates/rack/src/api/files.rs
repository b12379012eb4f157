//! Files of a running process, as tar. `tar` does the work where the process runs, with the process's own rights, so that nothing
//! can be read or written this way that a shell in the process could not.

use std::pin::Pin;
use std::task::{Context, Poll};

use convox_proxy::Body;
use convox_wire::options::FilesUploadOptions;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryStreamExt as _};
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::io::ReaderStream;

use super::call::Upload;
use super::{Answer, ApiError, Call, apps};
use crate::rack::Rack;
use crate::runtime::{ExecSpec, ExecStream};

/// What a failed command said, as far as it is told.
const LONGEST_REASON: usize = 500;

/// A word of the shell that means itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// An absolute path of a file, without the slash at its end.
fn absolute(path: &str) -> Result<&str, ApiError> {
    let is_sound = path.starts_with('/') && path.len() <= 4096 && !path.chars().any(char::is_control);
    match path.trim_end_matches('/') {
        path if is_sound && !path.is_empty() => Ok(path),
        _ => Err(ApiError::bad("name an absolute path below /")),
    }
}

async fn run(rack: &Rack, call: &Call, command: String, no_input: bool) -> Result<ExecStream, ApiError> {
    let app = apps::find(rack, call).await?;
    let id = call.var("pid");
    let process = rack.scheduler.process(&app.name, id).ok_or_else(|| ApiError::not_found("process", id))?;
    let spec = ExecSpec { command, no_input, ..ExecSpec::default() };
    Ok(rack.scheduler.exec(&app.name, &process.id, spec).await?)
}

/// Runs a command to its end; what it said if it failed.
pub(super) async fn done(mut stream: ExecStream) -> Result<(), String> {
    let mut said = Vec::new();
    let mut output = (&mut stream.output).take(64 * 1024);
    let _ = output.read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut stream.output, &mut tokio::io::sink()).await;
    match stream.exit.await {
        0 => Ok(()),
        code => {
            let text = String::from_utf8_lossy(&said);
            let text: String = text.trim().chars().filter(|char| !char.is_control()).take(LONGEST_REASON).collect();
            Err(if text.is_empty() { format!("it ended with code {code}") } else { text })
        }
    }
}

/// A tar of one file or directory, its names beginning with the last piece of the path.
pub(super) async fn download(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let path = absolute(call.loose("file").unwrap_or_default())?;
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = if dir.is_empty() { "/" } else { dir };
    // Once bytes flow, nothing can be refused any more, so what can be known is asked before.
    let look = run(rack, call, format!("test -e {0} && test -r {0} && command -v tar", quoted(path)), true).await?;
    done(look).await.map_err(|_| ApiError::new(StatusCode::NOT_FOUND, format!("no such file in the process, or no tar: {path}")))?;
    let stream = run(rack, call, format!("tar -cf - -C {} -- {} 2>/dev/null", quoted(dir), quoted(name)), true).await?;
    Ok(Answer::Stream(checked(stream, "tar")))
}

/// The output of a command as a body that breaks off if the command fails: nobody takes half of it for the whole.
pub(super) fn checked(stream: ExecStream, what: &'static str) -> Body {
    let checked = Checked { output: stream.output, exit: Some(stream.exit), what };
    Body::new(StreamBody::new(ReaderStream::new(checked).map_ok(Frame::data)))
}

/// A tar as the body, unpacked at `/`.
pub(super) async fn upload(rack: &Rack, call: &mut Call) -> Result<Answer, ApiError> {
    let options: FilesUploadOptions = call.options()?;
    if options.tar_extra.is_some_and(|flags| !flags.trim().is_empty()) {
        // Flags of tar can start programs, which the right to copy files does not give.
        return Err(ApiError::not_available("flags of one's own for tar (--tar-extra)"));
    }
    let body = call.take_body().ok_or_else(|| ApiError::bad("send the archive as application/octet-stream, not as a form"))?;
    let ExecStream { input, output, exit } = run(rack, call, "tar -xf - -C /".to_owned(), false).await?;
    let (fed, ended) = tokio::join!(feed(body, input), done(ExecStream { input: Box::new(tokio::io::sink()), output, exit }));
    fed.and(ended).map_err(|reason| ApiError::bad(format!("the files could not be unpacked: {reason}")))?;
    Ok(Answer::Ok)
}

/// Gives a command the body as its input.
pub(super) async fn feed(body: Upload, input: Box<dyn AsyncWrite + Send + Unpin>) -> Result<(), String> {
    feed_between("", body, "", input).await
}

/// The same, between two texts of ours. The last one follows only a body that came whole.
pub(super) async fn feed_between(
    before: &str,
    mut body: Upload,
    after: &str,
    mut input: Box<dyn AsyncWrite + Send + Unpin>,
) -> Result<(), String> {
    let mut is_heard = input.write_all(before.as_bytes()).await.is_ok();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "the upload was cut off; what came before may be there in part".to_owned())?;
        if let Ok(data) = frame.into_data() {
            is_heard = is_heard && input.write_all(&data).await.is_ok();
        }
        if !is_heard {
            // The command ended before; its own words say why.
            break;
        }
    }
    if is_heard {
        let _ = input.write_all(after.as_bytes()).await;
    }
    let _ = input.shutdown().await;
    Ok(())
}

/// Deletes files and directories.
pub(super) async fn delete(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let files: Vec<&str> = call.loose("files").unwrap_or_default().split(',').filter(|file| !file.is_empty()).collect();
    if files.is_empty() {
        return Err(ApiError::bad("name the files: files=/a,/b"));
    }
    let words = files.into_iter().map(|file| absolute(file).map(quoted)).collect::<Result<Vec<_>, _>>()?;
    let stream = run(rack, call, format!("rm -rf -- {}", words.join(" ")), true).await?;
    done(stream).await.map_err(|reason| ApiError::bad(format!("the files could not be deleted: {reason}")))?;
    Ok(Answer::Ok)
}

/// The output of a command that must have succeeded: else the body breaks off, and nobody takes half an archive for a whole one.
struct Checked {
    output: Box<dyn AsyncRead + Send + Unpin>,
    exit: Option<BoxFuture<'static, i32>>,
    what: &'static str,
}

impl AsyncRead for Checked {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.output).poll_read(context, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() == before => {}
            other => return other,
        }
        let Some(exit) = &mut self.exit else { return Poll::Ready(Ok(())) };
        match exit.poll_unpin(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(0) => {
                self.exit = None;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(code) => {
                self.exit = None;
                Poll::Ready(Err(std::io::Error::other(format!("{} ended with code {code}", self.what))))
            }
        }
    }
}
