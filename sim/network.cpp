#include "sim/network.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <limits>
#include <numeric>
#include <simgrid/kernel/Timer.hpp>
#include <simgrid/kernel/routing/NetPoint.hpp>
#include <simgrid/kernel/routing/NetZoneImpl.hpp>
#include <simgrid/s4u.hpp>
#include <string>
#include <vector>

#include "plan/ensure.h"

namespace sg4 = simgrid::s4u;
namespace routing = simgrid::kernel::routing;
using simgrid::kernel::resource::StandardLinkImpl;
using simgrid::kernel::timer::Timer;

// SimGrid's clock is a static variable that an engine leaves as it was: a second simulation in
// the same process would begin where the first ended, and its dates would be rounded otherwise.
// No call sets it back, so it is reached by its symbol (libsimgrid 3.32). A library without the
// symbol still works: dates are taken relative to the clock at the start, exact to its rounding.
extern double simgrid_static_clock_s asm("_ZN7simgrid6kernel10EngineImpl4now_E")
    __attribute__((weak));

namespace rehearse {
namespace {

/// Two hosts and many links. The route between the hosts is whatever the flow that is being
/// started needs: SimGrid asks for it once, while the flow starts.
class HintedZone : public routing::NetZoneImpl {
 public:
  HintedZone() : NetZoneImpl("network") {}
  std::vector<StandardLinkImpl*> next_route;

 protected:
  void get_local_route(const routing::NetPoint*, const routing::NetPoint*, routing::Route* into,
                       double*) override {
    into->link_list_.insert(into->link_list_.end(), next_route.begin(), next_route.end());
  }
};

/// SimGrid's engine installs handlers for some signals; those of the program are put back.
class KeptSignals {
 public:
  KeptSignals() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], nullptr, &kept_[i]);
  }
  ~KeptSignals() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &kept_[i], nullptr);
  }
  KeptSignals(const KeptSignals&) = delete;
  KeptSignals& operator=(const KeptSignals&) = delete;

 private:
  static constexpr std::array<int, 5> kSignals{SIGINT, SIGTERM, SIGSEGV, SIGBUS, SIGABRT};
  std::array<struct sigaction, kSignals.size()> kept_{};
};

/// Dates closer than this are one event for SimGrid. Below 2^11 s a double's last place is less
/// than 5e-13 s, so 1e-12 separates all that can be told apart; later SimGrid's own default.
constexpr double kFinePrecisionEnd_s = 2048;

std::unique_ptr<sg4::Engine> make_engine() {
  if (&simgrid_static_clock_s != nullptr) simgrid_static_clock_s = 0;
  static char name[] = "rehearse";
  static char quiet[] = "--log=root.thresh:critical";
  char* arguments[] = {name, quiet, nullptr};
  int count = 2;
  const KeptSignals signals;
  auto engine = std::make_unique<sg4::Engine>(&count, arguments);
  static bool configured = false;  // the configuration is static too, and may be set once only
  if (!configured) {
    configured = true;
    // Exact alpha-beta for a lone flow: no window, no cross traffic, no protocol overhead.
    for (const char* setting : {"network/model:CM02", "network/crosstraffic:0",
                                "network/TCP-gamma:0", "maxmin/precision:1e-9"})
      sg4::Engine::set_config(setting);
  }
  sg4::Engine::set_config("surf/precision:1e-12");
  return engine;
}

}  // namespace

struct Network::Impl {
  Impl(const StepGraph& step_graph, NetworkListener& network_listener)
      : graph(step_graph), listener(network_listener), engine(make_engine()) {
    begin_s = sg4::Engine::get_clock();
    build();
    listen();
  }

  void build();
  void listen();
  void finished(const sg4::Activity& activity);
  void timer_fired();

  static Impl* current;  // whose flows SimGrid's static signals are about

  const StepGraph& graph;
  NetworkListener& listener;
  std::unique_ptr<sg4::Engine> engine;
  HintedZone* zone = nullptr;  // the engine's
  sg4::Host* source = nullptr;
  sg4::Host* sink = nullptr;
  double begin_s = 0;
  double byte_scale = 1;
  std::vector<StandardLinkImpl*> links;  // by SimLink; null where no flow goes
  std::vector<std::int32_t> unit;        // by SimLink: weights are counted in this

  struct Slot {
    sg4::CommPtr comm;
    std::int32_t id = 0;
  };
  std::vector<Slot> slots;
  std::vector<std::int32_t> free_slots;
  std::vector<sg4::CommPtr> ended;  // kept until time advances: SimGrid still holds plain pointers
  int live = 0;

  Timer* timer = nullptr;
  double timer_date_s = 0;
  double reached_s = 0;  // dates up to here have come, whatever the clock's last place says
  bool coarse = false;
};

Network::Impl* Network::Impl::current = nullptr;

void Network::Impl::build() {
  links.assign(graph.links.size(), nullptr);
  unit.assign(graph.links.size(), 0);
  double largest_factor = 0;
  for (const PatternFlow& flow : graph.flows) {
    largest_factor = std::max(largest_factor, flow.bytes_factor);
    for (std::int32_t i = 0; i < flow.hop_count; ++i) {
      const Hop& hop = graph.hops[flow.first_hop + i];
      ensure(hop.weight > 0, "a flow uses a link at least once");
      unit[hop.link] = std::gcd(unit[hop.link], hop.weight);
    }
  }
  // SimGrid takes whole bytes. Counting them in 2^-k keeps the fractions that a division among
  // ranks leaves; a power of two changes no rounding.
  double largest_bytes = 1;
  for (const Task& task : graph.tasks)
    if (task.kind == TaskKind::Comm)
      largest_bytes = std::max(largest_bytes, task.bytes * largest_factor);
  byte_scale = std::exp2(std::clamp(61 - std::ilogb(largest_bytes), 0, 40));

  zone = new HintedZone;  // registers itself as the engine's root zone, which owns it
  sg4::NetZone* face = zone->get_iface();
  source = face->create_host("source", 1.0);
  sink = face->create_host("sink", 1.0);
  source->seal();
  sink->seal();
  for (std::size_t i = 0; i < links.size(); ++i) {
    if (unit[i] == 0) continue;
    const double bandwidth = graph.links[i].bandwidth_bytes_per_s / unit[i];
    ensure(bandwidth > 0, "a link that flows cross has a bandwidth");
    sg4::Link* link = face->create_link("link" + std::to_string(i), bandwidth * byte_scale);
    // Latency is a delay before the flow: with latencies on its links SimGrid 3.32 shares
    // bandwidth by their inverse, and its lazy updates give wrong shares.
    link->set_latency(0.0);
    link->seal();
    links[i] = link->get_impl();
  }
  face->seal();
}

void Network::Impl::listen() {
  ensure(current == nullptr, "one network at a time");
  current = this;
  static bool connected = false;  // signals are static, and nothing disconnects from them
  if (connected) return;
  connected = true;
  sg4::Activity::on_completion_cb([](const sg4::Activity& activity) {
    if (current != nullptr) current->finished(activity);
  });
  sg4::Engine::on_time_advance_cb([](double) {
    if (current != nullptr) current->ended.clear();
  });
}

void Network::Impl::finished(const sg4::Activity& activity) {
  const auto slot = reinterpret_cast<std::intptr_t>(activity.get_data<void>()) - 1;
  ended.push_back(std::move(slots[static_cast<std::size_t>(slot)].comm));
  free_slots.push_back(static_cast<std::int32_t>(slot));
  --live;
  reached_s = std::max(reached_s, sg4::Engine::get_clock() - begin_s);
  listener.flow_done(slots[static_cast<std::size_t>(slot)].id);
}

void Network::Impl::timer_fired() {
  timer = nullptr;  // SimGrid deletes a timer that has fired
  reached_s = std::max(reached_s, timer_date_s);
  listener.woken();
}

Network::Network(const StepGraph& graph, NetworkListener& listener)
    : impl_(std::make_unique<Impl>(graph, listener)) {}

Network::~Network() {
  impl_->ended.clear();
  Impl::current = nullptr;
}

double Network::now_s() const {
  return std::max(impl_->reached_s, sg4::Engine::get_clock() - impl_->begin_s);
}

int Network::live_flows() const { return impl_->live; }

bool Network::start(const PatternFlow& flow, double bytes, std::int32_t id) {
  Impl& net = *impl_;
  const auto payload = static_cast<std::uint64_t>(std::llround(bytes * net.byte_scale));
  if (payload == 0 || flow.hop_count == 0) return false;
  std::vector<StandardLinkImpl*>& route = net.zone->next_route;
  route.clear();
  // A link that appears w times in a route is charged w times for the flow.
  for (std::int32_t i = 0; i < flow.hop_count; ++i) {
    const Hop& hop = net.graph.hops[flow.first_hop + i];
    route.insert(route.end(), static_cast<std::size_t>(hop.weight / net.unit[hop.link]),
                 net.links[hop.link]);
  }
  std::int32_t slot = static_cast<std::int32_t>(net.slots.size());
  if (net.free_slots.empty()) {
    net.slots.emplace_back();
  } else {
    slot = net.free_slots.back();
    net.free_slots.pop_back();
  }
  sg4::CommPtr comm = sg4::Comm::sendto_init();
  comm->set_payload_size(payload);
  comm->set_data(reinterpret_cast<void*>(static_cast<std::intptr_t>(slot) + 1));
  net.slots[slot] = {comm, id};
  ++net.live;
  comm->set_source(net.source);
  comm->set_destination(net.sink);  // starts it
  return true;
}

void Network::wake_at(double date_s) {
  Impl& net = *impl_;
  if (net.timer != nullptr) {
    if (net.timer_date_s == date_s) return;
    net.timer->remove();
  }
  if (!net.coarse && date_s > kFinePrecisionEnd_s) {
    net.coarse = true;
    sg4::Engine::set_config("surf/precision:1e-9");
  }
  net.timer_date_s = date_s;
  net.timer = Timer::set(net.begin_s + date_s, [&net] { net.timer_fired(); });
}

void Network::run() {
  const KeptSignals signals;
  impl_->engine->run();
  ensure(impl_->live == 0 && impl_->timer == nullptr, "every flow ends");
}

}  // namespace rehearse
