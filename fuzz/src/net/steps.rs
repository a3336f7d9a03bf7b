//! What a driver, its network and its host program do, as the input says.

use super::*;
impl Test {
    /// A frame of the guest.
    pub(super) fn send(&mut self, input: &mut Input) {
        let pair = self.pair(input);
        let queue = TRANSMIT[pair];
        let Some(head) = self.free(queue) else { return };
        let at = self.buffer(queue, head);
        let len = model::frame_len(input);
        let header = model::header(input, len);
        let first = input.byte();
        let own = usize::try_from(BUFFER_LENS[queue] * u64::from(SHARE)).expect("it is small");
        let bytes: Vec<u8> =
            header.iter().copied().chain((0..len).map(|at| first.wrapping_add(at as u8))).take(own).collect();
        self.guest.world.write(at, &bytes);
        let whole = header.len() + len;
        let mut shape = Shape { readable: parts(input, at, bytes.len() as u64), ..Shape::default() };
        if whole > bytes.len() {
            shape.readable.push((REST, u32::try_from(whole - bytes.len()).expect("it is short")));
        }
        if input.one_in(16) {
            shape.readable.pop();
            shape.writable.push((at, 1));
        }
        let packet = self.packet(&shape);
        if let Some((header, frame)) = packet
            && model::passes(&header, frame.len(), offloads(self.features, [0, 11, 12, 13]))
        {
            self.expected[pair].push_back((without_extras(header), frame));
        }
        self.offer(queue, head, shape, None);
    }

    /// What a chain's readable bytes are.
    fn packet(&self, shape: &Shape) -> Option<Packet> {
        let len = total(&shape.readable);
        let parts = cut(&shape.readable, 0, len).into_iter();
        let bytes: Vec<u8> = parts.flat_map(|(gpa, len)| self.guest.world.mirror(gpa, len)).copied().collect();
        let header = bytes.first_chunk::<{ VnetHeader::LEN }>()?;
        Some((*header, bytes[VnetHeader::LEN..].to_vec()))
    }

    /// A buffer for frames, which may be an unfit one.
    pub(super) fn give_room(&mut self, input: &mut Input) {
        let queue = RECEIVE[self.pair(input)];
        let Some(head) = self.free(queue) else { return };
        let at = self.buffer(queue, head);
        let own = BUFFER_LENS[queue] * u64::from(SHARE);
        let len = match input.below(16) {
            0 => u64::from(input.byte() % 32),
            1 => 12,
            2 => 26,
            3..=6 => 64,
            7..=10 => 1526,
            _ => own,
        };
        let mut shape = Shape { writable: parts(input, at, len.min(own)), ..Shape::default() };
        if input.one_in(16) {
            shape.readable.push((at + own - 1, 1));
            shape.writable = vec![(at, 64)];
        }
        self.offer(queue, head, shape, None);
    }

    /// A frame for the guest.
    pub(super) fn bring(&mut self, input: &mut Input) {
        let line = self.pair(input);
        let len = model::frame_len(input);
        let header = model::header(input, len);
        let first = input.byte();
        let frame = (0..len).map(|at| first.wrapping_add(at as u8)).collect();
        let incoming = &mut lock(&self.wire).lines[line].incoming;
        if incoming.len() < 16 {
            incoming.push_back(((header, frame), input.one_in(2)));
        }
    }

    pub(super) fn command(&mut self, input: &mut Input) {
        // A driver that has not agreed to it has no such queue.
        let has_queue = self.features & CTRL_VQ != 0;
        let Some(head) = self.free(CONTROL).filter(|_| has_queue) else { return };
        let at = self.buffer(CONTROL, head);
        let bytes = match input.below(4) {
            0 => vec![input.byte(), input.byte()],
            1 => vec![3, 0, input.byte()],
            2 => match input.below(8) {
                0 => vec![4, 0, input.byte(), input.byte()],
                1 => vec![4, 0, 1, 0, 0],
                2 => vec![4, 1, 1, 0],
                count => vec![4, 0, (count % 4) as u8, 0],
            },
            _ => vec![3, 0],
        };
        self.guest.world.write(at, &bytes);
        let writable = if input.one_in(8) { Vec::new() } else { vec![(at + 0x20, 1)] };
        let pairs = match bytes[..] {
            [4, 0, low, high] if self.several && !writable.is_empty() => {
                Some(usize::from(u16::from_le_bytes([low, high]))).filter(|pairs| (1..=PAIRS).contains(pairs))
            }
            _ => None,
        };
        let shape = Shape { readable: vec![(at, u32::try_from(bytes.len()).expect("it is short"))], writable };
        let answer = u8::from(bytes != [3, 0] && pairs.is_none());
        self.offer(CONTROL, head, shape, Some(answer));
        if let Some(open) = self.open[CONTROL].back_mut() {
            open.pairs = pairs;
        }
    }

    /// The driver does what no driver may; from now until the next reset, only what holds for any driver is checked.
    pub(super) fn wild(&mut self, input: &mut Input) {
        if !self.hostile {
            self.settle();
            self.hostile = true;
        }
        let queue = usize::from(input.below(if self.several { QUEUES as u16 } else { 3 }));
        let index = input.below(32) % self.rings[queue].size;
        let descriptor = Descriptor::wild(input, index, RINGS[queue], BUFFERS[0]..REST);
        self.blind |= descriptor.may_change(RINGS[0]..BUFFERS[0]);
        self.rings[queue].set(&mut self.guest.world, index, descriptor);
        if input.one_in(2) {
            let count = if input.one_in(4) { input.below(40) } else { 1 };
            for _ in 0..count {
                let head = if input.one_in(32) { input.half() } else { input.below(32) % self.rings[queue].size };
                self.rings[queue].offer(&mut self.guest.world, head);
                let (shape, may_write) = (Shape::default(), Vec::new());
                self.open[queue].push_back(Open { head, shape, may_write, answer: None, pairs: None });
            }
        }
    }

    pub(super) fn reset(&mut self, input: &mut Input) {
        let allowed = self.allowed();
        self.guest.write(mmio::STATUS, 0);
        self.guest.world.adopt_changes(&allowed);
        self.guest.settle(&[]);
        self.open = Default::default();
        self.expected = Default::default();
        lock(&self.wire).clear();
        self.bring_up(input);
    }

    pub(super) fn pause(&mut self) {
        let allowed = self.allowed();
        let paused = self.guest.call(|transport| transport.pause(std::time::Duration::ZERO)).is_ok();
        self.guest.world.adopt_changes(&allowed);
        assert!(paused, "nothing is ever in flight for long, so a pause does not fail");
        self.paused = true;
        self.look();
        self.guest.settle(&[]);
    }

    pub(super) fn resume(&mut self, input: &mut Input) {
        if self.paused && input.one_in(2) && self.guest.read(mmio::STATUS) & status::DEVICE_NEEDS_RESET == 0 {
            let (device, handle) = device(&self.wire);
            self.guest.exchange(device);
            self.handle = handle;
            self.handle.set_link(self.link);
            // It is not limited.
            self.budget = None;
        }
        self.guest.call(|transport| transport.resume());
        self.paused = false;
    }

    /// One a second at most behind a burst, of frames, of bytes or of both; or whatever there is.
    fn limit(&mut self, input: &mut Input) {
        let frames = RateLimit::per_second(1).burst(1 + u64::from(input.byte() % 16));
        let bytes = RateLimit::per_second(1).burst(1 + u64::from(input.half()));
        let limits = match input.below(4) {
            0 => Limits::new().operations(frames),
            1 => Limits::new().bytes(bytes),
            2 => Limits::new().operations(frames).bytes(bytes),
            _ => Limits::new(),
        };
        if input.one_in(2) {
            self.handle.set_receive_limits(limits).expect("they are in range");
        } else {
            let sent = self.handle.metrics().sent_frames;
            self.budget = limits.operations.map(|rate| (Instant::now(), sent + rate.burst));
            self.handle.set_send_limits(limits).expect("they are in range");
        }
    }

    /// What waits may go.
    pub(super) fn lift_limits(&mut self) {
        self.budget = None;
        self.handle.set_receive_limits(Limits::new()).expect("there are none");
        self.handle.set_send_limits(Limits::new()).expect("there are none");
    }

    pub(super) fn host_does(&mut self, input: &mut Input) {
        match input.below(6) {
            0 => {
                self.link = !self.link;
                self.lossy = true;
                self.handle.set_link(self.link);
            }
            1 => self.handle.announce(),
            2 | 3 => self.limit(input),
            _ => lock(&self.wire).room = if input.one_in(2) { u8::MAX } else { input.byte() % 8 },
        }
    }
}
