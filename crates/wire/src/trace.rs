//! The place of a request in a trace, as callers say it: W3C trace context.

/// `00-TRACE-SPAN-FLAGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace: u128,
    /// The caller's span in it; never 0.
    pub span: u64,
    /// Whether the caller wants it told.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Of the values of all headers `traceparent`: two of them say nothing.
    pub fn of<'h>(mut said: impl Iterator<Item = &'h [u8]>) -> Option<Self> {
        match (said.next(), said.next()) {
            (Some(only), None) => Self::parse(only),
            _ => None,
        }
    }

    /// Of version 00, or the beginning of a later one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let hex = |part: &str, length: usize| {
            let is_hex = part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            is_hex.then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let mut parts = text.splitn(5, '-');
        let version = hex(parts.next()?, 2)?;
        let (trace, span, flags) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
        let is_known = match version {
            0 => parts.next().is_none(),
            0xff => false,
            _ => true,
        };
        (is_known && trace != 0 && span != 0).then_some(Self { trace, span: u64::try_from(span).ok()?, is_sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::TraceParent;

    #[test]
    fn only_what_is_well_formed_is_taken() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let found = TraceParent { trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span: 0x00f0_67aa_0ba9_02b7, is_sampled: true };
        assert_eq!(TraceParent::parse(good.as_bytes()), Some(found));
        assert_eq!(TraceParent::parse(good.replace("-01", "-fe").as_bytes()), Some(TraceParent { is_sampled: false, ..found }));
        assert!(TraceParent::parse(format!("cc{}-later", &good[2..]).as_bytes()).is_some(), "a later version begins alike");
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "\u{e9}",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn twice_is_not_at_all() {
        let said = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_slice();
        assert!(TraceParent::of([said].into_iter()).is_some());
        assert_eq!(TraceParent::of([said, said].into_iter()), None);
        assert_eq!(TraceParent::of(std::iter::empty()), None);
    }
}
