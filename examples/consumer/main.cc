#include <cstdio>
#include <eyas/eyas.hpp>

int main() {
    using Model = eyas::Eagle3<eyas::Cpu, eyas::F32>;
    using Colocated = eyas::Pipeline<eyas::Store<eyas::LocalFiles>, eyas::Trainer<Model>>;
    using Disaggregated = eyas::Pipeline<eyas::Store<eyas::SharedDirectory>, eyas::Trainer<Model>>;
    static_assert(std::same_as<Colocated::trainer_type, Disaggregated::trainer_type>);
    std::puts("one include, one dependency: colocated and disaggregated share the trainer type");
}
