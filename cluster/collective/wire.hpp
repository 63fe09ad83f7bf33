#pragma once
// Point-to-point messages between the ranks of a group: all that a host backend brings. The
// operations themselves are written once, over this (over_wire.cpp).

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cluster/collective.hpp"

namespace yumoe::collective {

class Wire {
 public:
  using Ticket = std::size_t;
  virtual ~Wire() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Messages from one rank to another arrive in the order they were sent. `bytes` stays untouched, and
  // `into` unread, until the ticket is done. Both of one length, at least 1 byte; to oneself: never.
  virtual Ticket send(int to, ByteView bytes) = 0;
  virtual Ticket receive(int from, std::span<std::uint8_t> into) = 0;

  // Whether it is done; then the ticket is spent. Lets everything else go on as well.
  virtual bool is_done(Ticket ticket) = 0;

  // Gives up what is under way: nothing is written to the memory of these tickets any more, where the
  // backend can promise that.
  virtual void abandon(std::span<const Ticket> tickets) = 0;

  // Whether a rank has left, for whatever reason. What it sent before still arrives.
  virtual bool has_left(int rank) = 0;

  // The ranks that the group has failed for: told by tell_lost, here or elsewhere.
  virtual std::vector<int> lost() = 0;

  // Tells every rank that these are missing, so that all name the same ones.
  virtual void tell_lost(std::span<const int> ranks) = 0;

  // See Collective::reform.
  virtual std::unique_ptr<Wire> reform(std::chrono::milliseconds wait_max) = 0;
};

std::unique_ptr<Collective> over(std::unique_ptr<Wire> wire, std::chrono::milliseconds wait_max);

}  // namespace yumoe::collective
