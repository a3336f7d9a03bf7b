# Runs commands for the host: listens on port 52 of the guest's vsock, and serves one connection after the other in threads.
# A connection brings a shell command and ends its half. Back come frames: a byte for what it is (o: standard output, e: standard error,
# x: the exit status), four bytes for the length, the lower ones first, and the content.
import os, socket, struct, subprocess, threading

def serve(host):
    lock = threading.Lock()
    def send(kind, content):
        with lock:
            host.sendall(kind + struct.pack("<I", len(content)) + content)
    def forward(kind, pipe):
        while content := os.read(pipe.fileno(), 65536):
            send(kind, content)
    with host:
        command = b"".join(iter(lambda: host.recv(65536), b""))
        child = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            other = threading.Thread(target=forward, args=(b"e", child.stderr))
            other.start()
            forward(b"o", child.stdout)
            other.join()
            send(b"x", struct.pack("<i", child.wait()))
        except OSError:
            child.kill()  # nobody waits for it any more
            child.wait()

listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
listener.bind((socket.VMADDR_CID_ANY, 52))
listener.listen(16)
print("the agent listens", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
