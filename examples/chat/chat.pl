#!/usr/bin/perl
# GET / is the page, /chat the WebSocket: what one says, everybody hears. Nothing but what perl brings along.
use strict;
use warnings;
use Digest::SHA 'sha1_base64';
use IO::Select;
use IO::Socket::INET;

my $host = $ENV{HOST} || '127.0.0.1';
my $port = $ENV{PORT} || 3000;
$| = 1;
$SIG{PIPE} = 'IGNORE';
$SIG{TERM} = sub { print "stopping\n"; exit 0 };

my $page = do { local $/; open my $file, '<', 'index.html' or die "index.html: $!\n"; <$file> };
my $server = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Listen => 128, ReuseAddr => 1)
    or die "cannot listen on $host:$port: $!\n";
my $select = IO::Select->new($server);
my %client;    # by descriptor: what came and is not yet whole, and whether it talks in frames already
print "listening on $host:$port\n";

while (1) {
    for my $socket ($select->can_read) {
        if ($socket == $server) {
            my $new = $server->accept or next;
            $client{fileno $new} = { socket => $new, buffer => '', chats => 0 };
            $select->add($new);
            next;
        }
        my $one = $client{fileno $socket};
        # More than anybody types: whoever sends it is shown out.
        if (!sysread($socket, $one->{buffer}, 4096, length $one->{buffer}) || length $one->{buffer} > 65_536) { leave($one); next }
        if ($one->{chats}) { hear($one) } else { greet($one) }
    }
}

sub leave {
    my ($one) = @_;
    $select->remove($one->{socket});
    delete $client{fileno $one->{socket}};
    close $one->{socket};
}

# An HTTP request: for the page, or to go on as a WebSocket.
sub greet {
    my ($one) = @_;
    return unless $one->{buffer} =~ s/^(.*?\r\n)\r\n//s;
    my $head = $1;
    my ($path) = $head =~ m{^GET (\S+)};
    if (defined $path && $path eq '/chat' && $head =~ /^sec-websocket-key:\s*(\S+)/im) {
        my $accept = sha1_base64("$1" . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11') . '=';
        syswrite $one->{socket}, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: $accept\r\n\r\n";
        $one->{chats} = 1;
        return hear($one);
    }
    my ($status, $type, $body) = ('404 Not Found', 'text/plain', "not found\n");
    if (defined $path && $path eq '/')       { ($status, $type, $body) = ('200 OK', 'text/html; charset=utf-8', $page) }
    if (defined $path && $path eq '/health') { ($status, $body) = ('200 OK', "ok\n") }
    syswrite $one->{socket}, "HTTP/1.1 $status\r\nContent-Type: $type\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    leave($one);
}

# Frames: a text goes to all, a ping is answered, an end is an end.
sub hear {
    my ($one) = @_;
    while (length $one->{buffer} >= 6) {
        my ($first, $second) = unpack 'CC', $one->{buffer};
        my ($length, $at) = ($second & 127, 2);
        return leave($one) if $length == 127 || !($second & 128);
        if ($length == 126) { $length = unpack 'n', substr $one->{buffer}, 2, 2; $at = 4 }
        return if length $one->{buffer} < $at + 4 + $length;
        my $mask = substr $one->{buffer}, $at, 4;
        my $text = substr($one->{buffer}, $at + 4, $length) ^ substr($mask x ($length / 4 + 1), 0, $length);
        substr $one->{buffer}, 0, $at + 4 + $length, '';
        my $kind = $first & 15;
        if    ($kind == 8) { say_to($one, 8, $text); return leave($one) }
        elsif ($kind == 9) { say_to($one, 10, $text) }
        elsif ($kind == 1) { say_to($_, 1, $text) for grep { $_->{chats} } values %client }
    }
}

sub say_to {
    my ($one, $kind, $text) = @_;
    my $length = length $text;
    syswrite $one->{socket}, pack('C', 128 | $kind) . ($length < 126 ? pack('C', $length) : pack('Cn', 126, $length)) . $text;
}
