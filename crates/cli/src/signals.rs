//! Every signal that ends a program and can be caught, turned into a value: whoever changed the terminal can then put it back.

/// Listens from when it is made; what came before it was waited for is not lost.
pub(crate) struct Signals {
    #[cfg(unix)]
    caught: Vec<(u8, tokio::signal::unix::Signal)>,
}

#[cfg(unix)]
impl Signals {
    /// To be made before the terminal is changed.
    pub(crate) fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        // ABRT, XCPU, XFSZ, VTALRM and PROF have these numbers on every Unix. PIPE is not among them: a closed output is an error of the write.
        let numbered = [6, 24, 25, 26, 27].map(SignalKind::from_raw);
        let named = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::alarm(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let number = |kind: SignalKind| u8::try_from(kind.as_raw_value()).unwrap_or_default();
        let caught = named.into_iter().chain(numbered).filter_map(|kind| Some((number(kind), signal(kind).ok()?))).collect();
        Self { caught }
    }

    /// The number of the first one that comes.
    pub(crate) async fn first(&mut self) -> u8 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.caught {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn listen() -> Self {
        Self {}
    }

    pub(crate) async fn first(&mut self) -> u8 {
        let _ = tokio::signal::ctrl_c().await;
        2
    }
}
