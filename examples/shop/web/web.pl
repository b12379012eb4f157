#!/usr/bin/perl
# GET / asks the service stock what there is.
use strict;
use warnings;
use IO::Socket::INET;

my $host = $ENV{HOST} || '127.0.0.1';
my $port = $ENV{PORT} || 3000;
$| = 1;
$SIG{PIPE} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Listen => 128, ReuseAddr => 1)
    or die "cannot listen on $host:$port: $!\n";
while (1) {
    my $client = $server->accept or next;
    my $line   = <$client>;
    while (my $header = <$client>) { last if $header =~ /^\r?\n$/ }
    my ($path) = ($line || '') =~ m{^GET (\S+)};
    my ($status, $body) = ('404 Not Found', "not found\n");
    if (defined $path && $path eq '/health') { ($status, $body) = ('200 OK', "ok\n") }
    if (defined $path && $path eq '/') {
        my $apples = stock('apples');
        ($status, $body) = defined $apples ? ('200 OK', "$apples apples left\n") : ('502 Bad Gateway', "the stock does not answer\n");
    }
    print $client "HTTP/1.1 $status\r\nContent-Type: text/plain\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client;
}

sub stock {
    my ($what) = @_;
    my ($address) = ($ENV{STOCK_URL} || '') =~ m{^http://([^/]+)};
    my $socket = $address && IO::Socket::INET->new(PeerAddr => $address, Timeout => 5) or return undef;
    print $socket "GET /$what HTTP/1.0\r\nHost: $address\r\n\r\n";
    my $reply = do { local $/; <$socket> } || '';
    return $reply =~ m{^HTTP/1\.\d 200 .*\r\n\r\n(\d+)}s ? $1 : undef;
}
