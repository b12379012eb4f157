#!/usr/bin/perl
# A small web server with nothing but perl-base, which every Debian machine has.
# GET / greets, GET /health says that all is well, everything else is 404.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();

my $port     = $ENV{PORT}     || 3000;
my $host     = $ENV{HOST}     || '127.0.0.1';
my $greeting = $ENV{GREETING} || 'Hello';
my $release  = $ENV{RELEASE}  || 'no release';

$| = 1;                      # each log line at once
$SIG{PIPE} = 'IGNORE';       # a client that goes away is no reason to end
$SIG{CHLD} = 'IGNORE';       # children are reaped by the system

my $server = IO::Socket::INET->new(
    LocalAddr => $host, LocalPort => $port, Proto => 'tcp', Listen => 128, ReuseAddr => 1,
) or die "cannot listen on $host:$port: $!\n";
print "listening on $host:$port\n";

# On SIGTERM: take no more connections; those being served are finished by their own process.
$SIG{TERM} = sub { print "stopping\n"; POSIX::_exit(0) };

while (1) {
    my $client = $server->accept or next;
    my $pid = fork;
    if (!defined $pid) { close $client; next; }
    if ($pid) { close $client; next; }
    close $server;
    $SIG{TERM} = 'IGNORE';
    serve($client);
    POSIX::_exit(0);
}

sub serve {
    my ($client) = @_;
    $SIG{ALRM} = sub { POSIX::_exit(0) };
    alarm 10;
    my $line = <$client>;
    return unless defined $line;
    while (my $header = <$client>) { last if $header =~ /^\r?\n$/; }

    my ($method, $path) = $line =~ m{^([A-Z]+) (\S+) HTTP/1\.[01]\r?\n$};
    my ($status, $body) = ('400 Bad Request', "not an HTTP request\n");
    if (defined $path) {
        my ($plain) = split /\?/, $path;
        if    ($plain eq '/')       { ($status, $body) = ('200 OK', "$greeting from $release, process $$\n") }
        elsif ($plain eq '/health') { ($status, $body) = ('200 OK', "ok\n") }
        else                        { ($status, $body) = ('404 Not Found', "not found\n") }
    }
    my $sent = defined $method && $method eq 'HEAD' ? '' : $body;
    print $client "HTTP/1.1 $status\r\nContent-Type: text/plain\r\nContent-Length: " . length($body)
        . "\r\nConnection: close\r\n\r\n$sent";
    close $client;
    return if defined $path && $path eq '/health';
    print((defined $path ? "$method $path" : 'bad request') . ' ' . substr($status, 0, 3) . "\n");
}
