//! The way from one server to its database, which can be cut and mended.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Carries connections on to a PostgreSQL server.
pub(crate) struct Cable {
    port: u16,
    inside: Arc<Inside>,
}

#[derive(Default)]
struct Inside {
    is_cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Cable {
    /// To `HOST:PORT`.
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cable = Self { port: listener.local_addr().unwrap().port(), inside: Arc::default() };
        let inside = Arc::clone(&cable.inside);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&server) else { continue };
                let mut open = inside.open.lock().unwrap();
                // Whoever cuts takes the lock after saying so: either they see these, or they are seen here.
                if inside.is_cut.load(SeqCst) {
                    continue;
                }
                for (from, to) in [(&near, &far), (&far, &near)] {
                    open.push(from.try_clone().unwrap());
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let mut bytes = vec![0; 64 * 1024];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            if to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        cable
    }

    /// To the server of this URL: the cable, and the URL of the same database at its near end.
    pub(crate) fn to_database(url: &str) -> (Self, String) {
        let (before, rest) = url.split_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let cable = Self::to(server.to_owned());
        let url = format!("{before}@127.0.0.1:{}/{name}", cable.port);
        (cable, url)
    }

    /// Nothing passes any more.
    pub(crate) fn cut(&self) {
        self.inside.is_cut.store(true, SeqCst);
        for stream in self.inside.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// New connections pass again.
    pub(crate) fn mend(&self) {
        self.inside.is_cut.store(false, SeqCst);
    }
}
