//! What a fuzzer's bytes mean to those who play a server: choices, numbers, bytes to send.

/// The fuzzer's bytes, read as choices.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A number of which small ones and extreme ones are likely.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            0..100 => u64::from(self.byte()),
            100..150 => u64::from(self.byte()) * 1021,
            150..170 => u64::MAX - u64::from(self.byte()),
            170..190 => (1 << 63) - 128 + u64::from(self.byte()),
            190..210 => (1 << 32) - 128 + u64::from(self.byte()),
            other => u64::from(other) << (self.byte() % 56),
        }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}
